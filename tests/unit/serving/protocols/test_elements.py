from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.errors import InvalidInput
from serving.protocols import elements
from serving.tensors import DTYPES, Array, Tensor

NUMERIC = [name for name in DTYPES if name not in ("BYTES", "BF16")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors_of_any_datatype(draw: st.DrawFn, finite: bool = False) -> Tensor:
    datatype = draw(st.sampled_from([*NUMERIC, "BYTES"]))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        size = int(np.prod(shape))
        texts = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=size, max_size=size))
        array: Array = np.empty(size, np.object_)
        array[:] = [text.encode() for text in texts]
        return Tensor("t", datatype, array.reshape(shape))
    values = {"allow_nan": not finite, "allow_infinity": not finite} if datatype.startswith("FP") else {}
    return Tensor("t", datatype, draw(hnp.arrays(DTYPES[datatype], shape, elements=values or None)))


@given(tensors_of_any_datatype())
def test_bytes_come_back_as_the_tensor_they_were(tensor: Tensor) -> None:
    array = elements.from_bytes("t", tensor.datatype, tensor.array.shape, memoryview(elements.to_bytes(tensor)))

    assert array.dtype == DTYPES[tensor.datatype]
    assert array.shape == tensor.array.shape
    if tensor.datatype == "BYTES":
        assert array.tolist() == tensor.array.tolist()
    else:
        assert array.tobytes() == tensor.array.tobytes()


@given(tensors_of_any_datatype(finite=True))
def test_json_values_come_back_as_the_tensor_they_were_flat_or_nested(tensor: Tensor) -> None:
    nested = tensor.array.tolist()
    if tensor.datatype == "BYTES":
        nested = np.array([element.decode() for element in tensor.array.ravel()], np.object_)
        nested = nested.reshape(tensor.array.shape).tolist()
    flat = np.array(nested, np.object_).ravel().tolist()

    for values in (nested, flat):
        array = elements.from_values("t", tensor.datatype, tensor.array.shape, values)
        assert array.dtype == DTYPES[tensor.datatype]
        assert array.shape == tensor.array.shape
        assert array.tolist() == tensor.array.tolist()


def test_a_tensor_at_an_odd_address_is_moved_to_an_even_one() -> None:
    raw = memoryview(b"\0" + np.arange(4, dtype="<f8").tobytes())[1:]

    assert elements.from_bytes("t", "FP64", (4,), raw).flags.aligned


def test_whole_numbers_above_2_to_the_63_keep_their_last_digit() -> None:
    array = elements.from_values("t", "UINT64", (2,), [2**64 - 1, 1])

    assert array.tolist() == [2**64 - 1, 1]


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "message"),
    [
        ("INT32", (1,), [1.5], "tensor 't' holds fractions, expected values of datatype INT32"),
        ("INT32", (1,), [1.0], "tensor 't' holds fractions, expected values of datatype INT32"),
        ("FP32", (1,), ["1"], "tensor 't' holds text, expected values of datatype FP32"),
        ("FP32", (1,), [None], "tensor 't' holds values like None, expected values of datatype FP32"),
        ("FP32", (1,), {"a": 1}, "tensor 't' holds values like {'a': 1}, expected values of datatype FP32"),
        ("INT64", (1,), [True], "tensor 't' holds booleans, expected values of datatype INT64"),
        ("BOOL", (1,), [1], "tensor 't' holds whole numbers, expected values of datatype BOOL"),
        ("BYTES", (1,), [1], "tensor 't' holds 1, expected text for datatype BYTES"),
        ("UINT8", (1,), [256], "tensor 't' holds 256, expected values of datatype UINT8 (0 to 255)"),
        ("UINT8", (1,), [-1], "tensor 't' holds -1, expected values of datatype UINT8 (0 to 255)"),
        ("FP32", (2,), [1, 1e39], "tensor 't' holds 1e+39, expected finite values of datatype FP32"),
        ("FP16", (1,), [70000], "tensor 't' holds 70000, expected finite values of datatype FP16"),
        ("FP32", (3,), [1, 2], "tensor 't' has 2 elements, expected 3 for shape [3]"),
        ("FP32", (2, 2), [[1, 2], [3]],
         "tensor 't' holds lists of unequal length, expected a flat list or equal rows"),
        ("BF16", (1,), [1], "tensor 't' of datatype BF16 must be sent as binary data"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_its_datatype_is_refused_as_given(
    datatype: str, shape: tuple[int, ...], values: Any, message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        elements.from_values("t", datatype, shape, values)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "message"),
    [
        ("FP32", (2,), b"\0" * 7, "tensor 't' has 7 bytes, expected 8 for datatype FP32 and shape [2]"),
        ("BOOL", (2,), b"\1\2", "tensor 't' of datatype BOOL holds a byte above 1, expected 0 or 1 each"),
        ("BYTES", (2,), b"\1\0\0\0a",
         "tensor 't' of datatype BYTES has 5 bytes, too few for 2 elements of shape [2] "
         "(a length of 4 bytes before each)"),
        ("BYTES", (2,), b"\5\0\0\0abcde",
         "tensor 't' of datatype BYTES has 1 elements, expected 2 for shape [2]"),
        ("BYTES", (1,), b"\5\0\0\0abc", "tensor 't' of datatype BYTES: element 0 says 5 bytes, 3 are left"),
        ("BYTES", (1,), b"\1\0\0\0ab",
         "tensor 't' of datatype BYTES has 1 bytes after its last element, expected 1 elements for shape [1]"),
    ],
)  # fmt: skip
def test_bytes_that_are_not_the_tensor_they_should_be_are_refused(
    datatype: str, shape: tuple[int, ...], raw: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        elements.from_bytes("t", datatype, shape, raw)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("y", "FP16", np.zeros(1, np.float16)),
         "output 'y' has datatype FP16, which JSON cannot carry; ask for it with the parameter binary_data"),
        (Tensor("y", "BYTES", np.array([b"\xff"], np.object_)),
         "output 'y' holds bytes that are no UTF-8 text; ask for it with the parameter binary_data"),
    ],
)  # fmt: skip
def test_an_output_that_json_cannot_carry_says_how_to_ask_for_it(tensor: Tensor, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        elements.to_values(tensor)

    assert str(refused.value) == message
