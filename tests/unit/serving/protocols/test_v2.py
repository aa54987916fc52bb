import gzip
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput, Unsupported
from serving.protocols import v2
from serving.requests import Request, Response, Wanted
from serving.tensors import Signature, Tensor, TensorSpec
from tests.unit.serving.protocols.test_elements import tensors_of_any_datatype

X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def decoded(document: dict[str, Any], tail: bytes = b"") -> Request:
    head = orjson.dumps(document)
    return v2.decode(head + tail, len(head) if tail else None)


def test_a_request_says_what_it_sends_and_what_it_wants() -> None:
    request = decoded(
        {
            "id": "7",
            "model_name": "unknown keys are never refused",
            "parameters": {"binary_data_output": True, "priority": 3},
            "inputs": [X],
            "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
        }
    )

    assert (request.id, request.outputs, request.binary) == ("7", [Wanted("y", False), Wanted("z")], True)
    assert [(t.name, t.datatype, t.array.tolist()) for t in request.inputs] == [("x", "FP32", [1.0, 2.0])]


def test_binary_tensors_follow_the_json_in_its_order() -> None:
    a, b = np.arange(3, dtype="<i2"), np.array([1.5])
    request = decoded(
        {
            "inputs": [
                {"name": "a", "datatype": "INT16", "shape": [3], "parameters": {"binary_data_size": 6}},
                X,
                {"name": "b", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
            ]
        },
        a.tobytes() + b.tobytes(),
    )

    assert [(t.name, t.array.tolist()) for t in request.inputs] == [("a", [0, 1, 2]), ("x", [1.0, 2.0]), ("b", [1.5])]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the request is [], expected a JSON object"),
        ({}, "the request has no inputs, expected a list 'inputs' with at least one tensor"),
        ({"inputs": []}, "the request has no inputs, expected a list 'inputs' with at least one tensor"),
        ({"inputs": {"x": [1, 2]}}, "'inputs' is {'x': [1, 2]}, expected a list 'inputs' with at least one tensor"),
        ({"inputs": [3]}, "an input is 3, expected an object with a 'name'"),
        ({"inputs": [X], "outputs": 1}, "'outputs' is 1, expected a list of outputs by name"),
        ({"inputs": [X], "outputs": ["y"]}, "an output is 'y', expected an object with a 'name'"),
        ({"inputs": [X], "id": 3}, "'id' is 3, expected text"),
        ({"inputs": [X], "parameters": 3}, "'parameters' of the request is 3, expected an object"),
        (
            {"inputs": [X], "parameters": {"binary_data_output": 1}},
            "the parameter binary_data_output is 1, expected true or false",
        ),
        ({"inputs": [{**X, "shape": 2}]}, "tensor 'x' has shape 2, expected a list of numbers"),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]},
            "tensor 'x' has no shape, expected a list of numbers",
        ),
        (
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]},
            "tensor 'x' has no data, expected 'data' or the parameter binary_data_size",
        ),
        (
            {"inputs": [{**X, "parameters": {"binary_data_size": 8}}]},
            "tensor 'x' has both data and binary_data_size, expected one of them",
        ),
    ],
)
def test_a_request_that_is_not_one_is_refused_with_the_place(document: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode(orjson.dumps(document))

    assert str(refused.value) == message


def test_text_that_is_no_json_is_refused_with_the_place() -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode(b'{"inputs": [')

    assert str(refused.value) == "the request is no JSON: unexpected end of data: line 1 column 13 (char 12)"


@pytest.mark.parametrize("tail", [b"\x01\x02\x03\x04", b"\x00\x00\x80\x3f"])
def test_bytes_behind_the_json_are_met_with_a_question_for_the_header_that_says_where_it_ends(tail: bytes) -> None:
    item = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    body = orjson.dumps({"inputs": [item]}) + tail

    with pytest.raises(InvalidInput) as refused:
        v2.decode(body)
    assert str(refused.value).startswith("the request is no JSON: ")
    assert str(refused.value).endswith("; is the header Inference-Header-Content-Length set?")

    with pytest.raises(InvalidInput) as refused:
        v2.decode(body, len(body))
    assert "header" not in str(refused.value)


def test_text_in_another_encoding_is_no_tail() -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode('{"id": "\xfc"}'.encode("latin-1"))
    assert "header" not in str(refused.value)


def test_packed_json_without_its_header_is_recognized() -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode(gzip.compress(orjson.dumps({"inputs": [X]})))

    assert str(refused.value) == (
        "the request is no JSON but gzip data, expected the header Content-Encoding: gzip with it"
    )


@pytest.mark.parametrize(
    ("datatype", "message"),
    [
        ("INT64", "input 'x' has datatype 'INT64', the model expects FP32"),
        ("fp32", "input 'x' has datatype 'fp32', the model expects FP32"),
        (None, "input 'x' has datatype None, the model expects FP32"),
        ("FP32", "tensor 'x' has 1 elements, expected 2 for shape [2]"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_first_held_against_the_models_datatype(datatype: Any, message: str) -> None:
    signature = Signature((TensorSpec("x", "FP32", (2,)),), ())
    body = orjson.dumps({"inputs": [{**X, "datatype": datatype, "data": [1.5]}]})

    with pytest.raises(InvalidInput) as refused:
        v2.decode(body, None, signature)

    assert str(refused.value) == message


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_what_this_server_does_not_have_is_said_rather_than_ignored(place: str) -> None:
    named = {**X, "parameters": {"shared_memory_region": "r"}}

    with pytest.raises(Unsupported) as refused:
        decoded({"inputs": [X], **{place: [named]}})

    assert str(refused.value) == f"{place[:-1]} 'x' names shared memory, which this server does not have"


def test_outputs_are_asked_for_with_their_form_and_their_classes() -> None:
    request = decoded(
        {
            "inputs": [X],
            "outputs": [
                {"name": "a", "parameters": {"classification": 3, "binary_data": True}},
                {"name": "b", "parameters": {"other": 1}},
                {"name": "c"},
            ],
        }
    )

    assert request.outputs == [Wanted("a", True, 3), Wanted("b"), Wanted("c")]


def test_an_answer_is_json_unless_asked_for_as_binary() -> None:
    y, z = np.array([[1.5, 2.5]], np.float32), np.array([b"seven"], np.object_)
    response = Response("digits", "3", "7", [Tensor("y", "FP32", y), Tensor("z", "BYTES", z)])

    body, length = v2.encode(response, Request("7", []))

    assert length is None
    assert orjson.loads(body) == {
        "model_name": "digits",
        "model_version": "3",
        "id": "7",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]},
            {"name": "z", "datatype": "BYTES", "shape": [1], "data": ["seven"]},
        ],
    }


def test_an_output_asked_for_as_binary_follows_the_json() -> None:
    response = Response("digits", "1", "", [Tensor("y", "FP32", np.array([1.5], np.float32))])

    body, length = v2.encode(response, Request("", [], [Wanted("y", True)]))

    assert orjson.loads(body[:length]) == {
        "model_name": "digits",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}],
    }
    assert body[length:] == np.array([1.5], "<f4").tobytes()


@given(st.lists(tensors_of_any_datatype(finite=True), min_size=1, max_size=3), st.booleans())
def test_an_answer_can_be_sent_back_as_a_request_and_is_the_same(tensors: list[Tensor], binary: bool) -> None:
    named = [tensor._replace(name=f"t{index}") for index, tensor in enumerate(tensors)]
    if not binary:
        named = [tensor for tensor in named if tensor.datatype != "FP16"]
    if not named:
        return
    body, length = v2.encode(Response("m", "1", "i", named), Request("i", [], binary=binary))
    document = orjson.loads(body[:length])
    head = orjson.dumps({"id": "i", "inputs": document["outputs"]})

    request = v2.decode(head + (body[length:] if length is not None else b""), len(head))

    assert [(t.name, t.datatype, t.array.shape, t.array.tolist()) for t in request.inputs] == [
        (t.name, t.datatype, t.array.shape, t.array.tolist()) for t in named
    ]


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 300)))
def test_whatever_bytes_come_are_decoded_or_refused(body: bytes, length: int | None) -> None:
    try:
        v2.decode(body, length)
    except (InvalidInput, Unsupported):
        return


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.just("x"), JSON),
        "datatype": st.one_of(st.sampled_from(["FP32", "INT8", "UINT64", "BOOL", "BYTES", "FP16", "BF16"]), JSON),
        "shape": st.one_of(st.lists(st.integers(0, 3), max_size=3), JSON),
        "data": JSON,
        "parameters": st.one_of(st.dictionaries(st.just("binary_data_size"), st.integers(-1, 9)), JSON),
    },
)


@given(
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(TENSOR, max_size=2), JSON)},
        optional={"outputs": JSON, "id": JSON, "parameters": JSON},
    ),
    st.binary(max_size=9),
)
def test_whatever_json_comes_is_decoded_or_refused(document: dict[str, Any], tail: bytes) -> None:
    try:
        decoded(document, tail)
    except (InvalidInput, Unsupported):
        return


@pytest.mark.parametrize(
    ("spec", "body", "shape"),
    [
        (TensorSpec("x", "FP32", (-1, 2)), b"\0" * 16, (2, 2)),
        (TensorSpec("x", "FP32", (-1, -1, 2)), b"\0" * 16, (1, 2, 2)),
        (TensorSpec("x", "BYTES", (-1,)), b"seven", (1,)),
    ],
)
def test_a_body_without_json_is_the_models_one_input(spec: TensorSpec, body: bytes, shape: tuple[int, ...]) -> None:
    request = v2.decode_raw(body, Signature((spec,), ()))

    assert [(t.name, t.array.shape) for t in request.inputs] == [("x", shape)]
    assert request.binary


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            (TensorSpec("x", "FP32", (1, -1, -1)),),
            "tensor 'x' of shape [1, -1, -1] cannot be sent without a JSON part: more than one dimension is unknown",
        ),
        (
            (TensorSpec("x", "FP32", (1,)), TensorSpec("y", "FP32", (1,))),
            "the model has 2 inputs; a body without a JSON part (Inference-Header-Content-Length: 0) needs a model "
            "with one",
        ),
    ],
)
def test_a_body_without_json_needs_a_model_that_leaves_no_question(specs: tuple[TensorSpec, ...], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode_raw(b"\0" * 16, Signature(specs, ()))

    assert str(refused.value) == message


def test_parameters_travel_with_their_request() -> None:
    parameters = {"priority": 2, "timeout": 1500, "sequence_id": "s", "sequence_start": True, "other": {"a": [1]}}

    request = decoded({"parameters": parameters, "inputs": [X]})

    assert (request.parameters, request.priority, request.timeout_s) == (parameters, 2, 0.0015)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"inputs":[' + b"[]," * 600_000 + b"0]}",
         "the request has more than 524288 lists and objects; send values as one flat list"),
        (b'{"a":[' + b'{"":1},' * 600_000 + b"0]}",
         "the request has more than 524288 lists and objects; send values as one flat list"),
        (b'{"a":[' + b'"",' * 1_100_000 + b"0]}",
         "the request has more than 1048576 texts; send them as binary data, or fewer"),
    ],
)  # fmt: skip
def test_tiny_values_that_would_weigh_far_more_than_their_text_are_counted_first(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        v2.decode(text)

    assert str(refused.value) == message


def test_a_body_of_empty_texts_is_refused_before_they_are_made() -> None:
    item = {"name": "x", "datatype": "BYTES", "shape": [2**21], "parameters": {"binary_data_size": 2**23}}
    head = orjson.dumps({"inputs": [item]})

    with pytest.raises(InvalidInput) as refused:
        v2.decode(head + bytes(2**23), len(head))

    assert str(refused.value) == "tensor 'x' of datatype BYTES has 2097152 elements, expected at most 1048576 at a time"
