from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.protocols import v1
from serving.requests import Response
from serving.tensors import Signature, Tensor, TensorSpec
from tests.unit.serving.protocols.test_v2 import JSON

ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), ())
TWO = Signature((TensorSpec("a", "INT64", (-1,)), TensorSpec("b", "BYTES", (-1,))), ())


def decoded(document: Any, signature: Signature) -> dict[str, Any]:
    request, _ = v1.decode(orjson.dumps(document), signature)
    return {tensor.name: tensor.array.tolist() for tensor in request.inputs}


@pytest.mark.parametrize(
    ("document", "signature", "inputs"),
    [
        ({"instances": [[1, 2], [3, 4]]}, ONE, {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"x": [1, 2]}]}, ONE, {"x": [[1, 2]]}),
        ({"inputs": [[1, 2]]}, ONE, {"x": [[1, 2]]}),
        ({"inputs": {"x": [[1, 2]]}}, ONE, {"x": [[1, 2]]}),
        (
            {"instances": [{"a": 1, "b": "q"}, {"a": 2, "b": {"b64": "/wA="}}]},
            TWO,
            {"a": [1, 2], "b": [b"q", b"\xff\0"]},
        ),
        ({"inputs": {"a": [1], "b": ["q"]}}, TWO, {"a": [1], "b": [b"q"]}),
    ],
)
def test_rows_and_columns_become_tensors(document: Any, signature: Signature, inputs: dict[str, Any]) -> None:
    assert decoded(document, signature) == inputs


@pytest.mark.parametrize(
    ("document", "signature", "message"),
    [
        ({}, ONE, "the request must have either 'instances' (rows) or 'inputs' (columns)"),
        ({"instances": []}, ONE, "'instances' is [], expected a list with at least one row"),
        ({"instances": [[1, 2], [3]]}, ONE,
         "tensor 'x' holds lists of unequal length, expected a flat list or equal rows"),
        ({"instances": [{"a": 1}]}, TWO, "a row is {'a': 1}, expected an object with 'a', 'b'"),
        ({"inputs": {"a": [1]}}, TWO, "'inputs' is {'a': [1]}, expected an object with 'a', 'b'"),
        ({"inputs": {"a": [1], "b": [{"b64": "%"}]}}, TWO,
         "tensor 'b' holds {'b64': '%'}, expected text or an object {'b64': base64 text}"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_the_model_is_refused(document: Any, signature: Signature, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        decoded(document, signature)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("outputs", "rows", "document"),
    [
        ([Tensor("y", "FP32", np.array([[1.5], [2.5]], np.float32))], True, {"predictions": [[1.5], [2.5]]}),
        ([Tensor("y", "FP32", np.array([[1.5]], np.float32))], False, {"outputs": [[1.5]]}),
        (
            [Tensor("n", "INT64", np.array([1, 2])), Tensor("s", "BYTES", np.array([b"q", b"\xff"], np.object_))],
            True,
            {"predictions": [{"n": 1, "s": "q"}, {"n": 2, "s": {"b64": "/w=="}}]},
        ),
        (
            [Tensor("n", "INT64", np.array([1])), Tensor("m", "INT64", np.array([2]))],
            False,
            {"outputs": {"n": [1], "m": [2]}},
        ),
    ],
)
def test_answers_take_the_form_of_the_request(outputs: list[Tensor], rows: bool, document: Any) -> None:
    assert orjson.loads(v1.encode(Response("m", "1", "", outputs), rows)) == document


@given(st.dictionaries(st.sampled_from(["instances", "inputs"]), JSON), st.sampled_from([ONE, TWO]))
def test_whatever_json_comes_is_decoded_or_refused(document: Any, signature: Signature) -> None:
    try:
        decoded(document, signature)
    except InvalidInput:
        return


def test_lists_nested_a_thousand_deep_are_refused() -> None:
    body = b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}"

    with pytest.raises(InvalidInput):
        v1.decode(body, ONE)
    with pytest.raises(InvalidInput):
        v1.decode(body, Signature((TensorSpec("s", "BYTES", (-1,)),), ()))


@pytest.mark.parametrize(("rows", "key"), [(True, "predictions"), (False, "outputs")])
def test_an_output_without_dimensions_is_a_bare_value(rows: bool, key: str) -> None:
    response = Response("m", "1", "", [Tensor("y", "FP32", np.array(2.5, np.float32))])

    assert orjson.loads(v1.encode(response, rows)) == {key: 2.5}


def test_integers_as_c_calls_them_are_rows_like_any_other() -> None:
    label, score = Tensor("label", "INT64", np.array([2], np.longlong)), Tensor("score", "FP32", np.ones(1, np.float32))

    assert v1.encode(Response("m", "1", "", [label, score]), True) == b'{"predictions":[{"label":2,"score":1.0}]}'
