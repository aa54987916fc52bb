from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.errors import InvalidInput
from serving.protocols import classification
from serving.requests import Request, Response, Wanted
from serving.tensors import DTYPES, Signature, Tensor, TensorSpec

NUMBERS = ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")


def classes(
    values: Any, count: int, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4), labels: tuple[str, ...] = ()
) -> Tensor:
    """The classes of an output that a model declares as ``shape``."""
    tensor = Tensor("y", datatype, np.asarray(values, DTYPES[datatype]))
    signature = Signature((), (TensorSpec("y", datatype, shape, labels),))
    request = Request("7", [], [Wanted("y", classes=count)])
    (answered,) = classification.answered(Response("m", "1", "7", [tensor]), request, signature).outputs
    return answered


def test_each_row_of_a_batch_has_its_own_classes() -> None:
    answered = classes([[1.1, 3.3, 0.5, 2.4], [4, 3, 2, 1]], 2)

    assert (answered.name, answered.datatype) == ("y", "BYTES")
    assert answered.array.tolist() == [[b"3.300000:1", b"2.400000:3"], [b"4.000000:0", b"3.000000:1"]]


def test_an_output_of_fixed_shape_is_one_row() -> None:
    assert classes([[1, 5], [10, 4]], 3, "INT32", (2, 2)).array.tolist() == [b"10:2", b"5:1", b"4:3"]


def test_a_class_that_has_a_label_shows_it() -> None:
    assert classes([1, 5, 10, 4], 4, "INT64", (4,), ("zero", "one", "two:2")).array.tolist() == [
        b"10:2:two:2", b"5:1:one", b"4:3", b"1:0:zero",
    ]  # fmt: skip


def test_no_more_classes_are_given_than_there_are() -> None:
    assert classes([[1, 2, 3, 4]], 9, "UINT8").array.tolist() == [[b"4:3", b"3:2", b"2:1", b"1:0"]]


def test_of_equal_values_the_first_comes_first_and_what_is_no_number_last() -> None:
    assert classes([2, np.nan, 2, -np.inf, np.inf], 5, shape=(5,)).array.tolist() == [
        b"inf:4", b"2.000000:0", b"2.000000:2", b"nan:1", b"-inf:3",
    ]  # fmt: skip


@pytest.mark.parametrize(("rows", "width"), [(0, 4), (2, 0), (0, 0)])
def test_an_output_without_elements_has_no_classes(rows: int, width: int) -> None:
    assert classes(np.empty((rows, width)), 2, shape=(-1, -1)).array.shape == (rows, min(width, 2))


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES", "FP16", "BF16"])
def test_what_cannot_be_ordered_is_refused(datatype: str) -> None:
    with pytest.raises(InvalidInput, match=f"^output 'y' has datatype {datatype}, of which there is no classification"):
        classes(np.zeros(4, DTYPES[datatype]), 1, datatype)


def test_an_output_that_is_not_asked_for_classes_stays_as_it_is() -> None:
    response = Response("m", "1", "7", [Tensor("y", "FP32", np.zeros(4, np.float32))])

    assert classification.answered(response, Request("7", [], [Wanted("y")]), Signature((), ())) is response


@given(st.data(), st.sampled_from(NUMBERS))
def test_the_classes_are_those_that_a_full_sort_gives(data: st.DataObject, datatype: str) -> None:
    values = data.draw(
        arrays.arrays(
            DTYPES[datatype],
            arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
            elements=arrays.from_dtype(DTYPES[datatype], allow_nan=False),
        )
    )
    count = data.draw(st.integers(1, 7))

    found = classes(values, count, datatype, (-1, -1)).array

    for row, given_row in zip(values.tolist(), found.tolist(), strict=True):
        wanted = sorted(range(len(row)), key=lambda index: -row[index])[:count]
        assert [int(text.split(b":")[1]) for text in given_row] == wanted
