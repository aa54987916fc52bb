from typing import Any

import numpy as np
import orjson
import pytest

from serving.errors import InferenceFailed, InvalidInput
from serving.protocols import generate
from serving.requests import Request, Response
from serving.tensors import DTYPES, Signature, Tensor, TensorSpec


def decoded(document: Any, *specs: TensorSpec) -> Request:
    return generate.decode(orjson.dumps(document), Signature(specs, specs))


TEXT = TensorSpec("text_input", "BYTES", (-1, 1))


def test_keys_are_inputs_and_what_is_no_input_is_a_parameter() -> None:
    request = decoded(
        {
            "text_input": "sieben",
            "id": "7",
            "stream": True,
            "parameters": {"temperature": 0, "n": [3, 4], "priority": 2, "timeout": 500},
        },
        TEXT,
        TensorSpec("n", "INT32", (-1,)),
    )

    assert [(t.name, t.datatype, t.array.tolist()) for t in request.inputs] == [
        ("text_input", "BYTES", [[b"sieben"]]),
        ("n", "INT32", [3, 4]),
    ]
    assert request.id == "7"
    assert request.parameters == {"stream": True, "temperature": 0, "priority": 2, "timeout": 500}
    assert (request.priority, request.timeout_s) == (2, 0.0005)


@pytest.mark.parametrize(
    ("shape", "value", "expected"),
    [
        ((), 5, ()),
        ((1,), 5, (1,)),
        ((-1,), 5, (1,)),
        ((-1,), [], (0,)),
        ((-1,), [1, 2, 3], (3,)),
        ((-1, 2), [1, 2, 3, 4], (2, 2)),
        ((-1, 2), [[1, 2], [3, 4]], (2, 2)),
        ((-1, -1), [1, 2, 3], (1, 3)),
        ((-1, 2, -1), [1, 2, 3, 4], (1, 2, 2)),
        ((0, -1), [], (0, 0)),
    ],
)
def test_a_shape_follows_from_the_number_of_values(
    shape: tuple[int, ...], value: Any, expected: tuple[int, ...]
) -> None:
    assert decoded({"x": value}, TensorSpec("x", "FP32", shape)).inputs[0].array.shape == expected


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the request is [], expected a JSON object"),
        ({"text_input": "hi", "id": "7", "parameters": {"n": 1}},
         "input 'x' is missing; given: 'n', 'text_input', expected: 'x'"),
        ({"x": [1, 2, 3]}, "tensor 'x' has 3 elements, expected 2 for shape [1, 2]"),
        ({"x": None}, "tensor 'x' holds values like None, expected values of datatype FP32"),
        ({"x": {"a": 1}}, "tensor 'x' holds values like {'a': 1}, expected values of datatype FP32"),
        ({"x": [1, 2], "id": 7}, "'id' is 7, expected text"),
        ({"x": [1, 2], "parameters": 7}, "'parameters' of the request is 7, expected an object"),
        ({"x": [1, 2], "priority": "high"},
         "the parameter priority is 'high', expected a whole number from 0 up; 1 is the highest"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_one_is_refused_with_the_place(document: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decoded(document, TensorSpec("x", "FP32", (-1, 2)))

    assert str(refused.value) == message


def test_lists_in_lists_without_end_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^tensor 'x' is nested more than 32 lists deep$"):
        generate.decode(b'{"x": %b1%b}' % (b"[" * 200, b"]" * 200), Signature((TensorSpec("x", "FP32", (-1,)),), ()))


def test_an_answer_has_a_value_for_one_element_and_a_list_for_any_other_number() -> None:
    outputs = [
        Tensor("text_output", "BYTES", np.array([["七".encode()]], np.object_)),
        Tensor("one", "FP32", np.array([[1.5]], np.float32)),
        Tensor("flag", "BOOL", np.array(True)),
        Tensor("none", "INT8", np.empty(0, np.int8)),
        Tensor("two", "INT64", np.array([[1, 2]])),
    ]

    assert orjson.loads(generate.encode(Response("m", "3", "7", outputs))) == {
        "model_name": "m", "model_version": "3", "id": "7",
        "text_output": "七", "one": 1.5, "flag": True, "none": [], "two": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("datatype", [d for d in DTYPES if d not in ("FP16", "BF16", "BYTES")])
def test_a_single_value_of_every_datatype_can_be_told(datatype: str) -> None:
    tensor = Tensor("y", datatype, np.ones(1, DTYPES[datatype]))

    assert orjson.loads(generate.encode(Response("m", "3", "", [tensor])))["y"] == 1


def test_events_are_those_of_server_sent_events() -> None:
    assert generate.event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert generate.failure(InferenceFailed("it broke")) == b'data: {"error":"it broke"}\n\n'
