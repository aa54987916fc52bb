"""Large requests by way of simdjson against the same requests by way of orjson."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidInput
from serving.protocols import large, v2

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, -1, -0.0, 2**53 + 1, 1e308, 3.5e38, 255, 256]),
)
VALUES = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=2), st.lists(NUMBERS, max_size=2))
DATATYPES = st.sampled_from(["FP32", "FP64", "FP16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES"])


def outcome(text: bytes) -> Any:
    try:
        request = v2.decode(text)
    except InvalidInput as error:
        return str(error)
    tensors = [(tensor.name, tensor.datatype, tensor.array.shape, tensor.array.tolist()) for tensor in request.inputs]
    return request._replace(inputs=()), tensors


def both(text: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    with monkeypatch.context() as patch:
        patch.setattr(large, "MIN_BYTES", 0)
        by_simdjson = outcome(text)
    return by_simdjson, outcome(text)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    inputs = []
    for name in draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=2)):
        values = draw(st.one_of(st.lists(NUMBERS, max_size=6), st.lists(VALUES, max_size=6)))
        shape = draw(st.sampled_from([[len(values)], [1, len(values)], [2, len(values) // 2], [len(values) + 1]]))
        data: Any = values
        if draw(st.booleans()) and shape[0] == 2:
            half = draw(st.sampled_from([len(values) // 2, 1]))
            data = [values[:half], values[half:]]
        inputs.append({"name": name, "datatype": draw(DATATYPES), "shape": shape, "data": data})
    more = draw(st.fixed_dictionaries({}, optional={"id": st.text(max_size=3), "outputs": st.just([{"name": "y"}])}))
    return orjson.dumps({"inputs": inputs, **more})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(documents())
def test_a_large_request_means_what_it_would_if_it_were_small(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    by_simdjson, by_orjson = both(text, monkeypatch)

    assert by_simdjson == by_orjson


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"data":[2]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,[2]]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[[1,2],[]]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,2,3],[4]]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[[[1]]]}]}',
        b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[9007199254740993]}]}',
        b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[1.0]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1e400]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[123456789012345678901234567890]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]} ,',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[0],"data":[]}], "unknown": [[]]}',
        b'{"id":"\xff","inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}',
        b'{"id":"\\ud800","inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}',
        b'{"a/b~0":1,"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}',
    ],
)
def test_what_the_two_parsers_take_differently_is_taken_as_orjson_does(
    monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    by_simdjson, by_orjson = both(text, monkeypatch)

    assert by_simdjson == by_orjson


@pytest.mark.parametrize("nested", [False, True])
def test_numbers_in_quantity_need_no_second_reading(nested: bool) -> None:
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    data = (values if nested else values.ravel()).tolist()
    text = orjson.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [64, 64], "data": data}]})
    assert len(text) > large.MIN_BYTES
    assert large.parse(text) is not None

    (tensor,) = v2.decode(text).inputs

    assert np.array_equal(tensor.array, values)
