from collections.abc import Sequence

import numpy as np
import pytest

from serving.requests import Request
from serving.scheduling import batching
from serving.scheduling.job import Job, Key
from serving.tensors import Array, Tensor, TensorSpec

Y, Z = TensorSpec("y", "FP32", (-1, 2)), TensorSpec("z", "BYTES", (-1,))


def job(outputs: Sequence[TensorSpec], **inputs: Array) -> Job:
    request = Request("", [Tensor(name, "FP32", array) for name, array in inputs.items()])
    made = Job(request, inputs, outputs, 0.0, 1.0, lambda *_: None, lambda _: None)
    made.rows, made.key = batching.rows_and_key(inputs, 8)
    return made


@pytest.mark.parametrize(
    ("shapes", "rows", "key"),
    [
        ([(1, 4)], 1, ((4,),)),
        ([(8, 4)], 8, ((4,),)),
        ([(9, 4)], 9, None),
        ([(0, 4)], 0, None),
        ([()], 1, None),
        ([(3,)], 3, ((),)),
        ([(2, 4), (2,)], 2, ((4,), ())),
        ([(2, 4), (3, 4)], 2, None),
        ([(2, 4), ()], 2, None),
        ([(2, 0)], 2, ((0,),)),
    ],
)
def test_requests_share_a_call_when_all_but_their_rows_agree(
    shapes: list[tuple[int, ...]], rows: int, key: Key | None
) -> None:
    inputs = {f"x{number}": np.zeros(shape) for number, shape in enumerate(shapes)}

    assert batching.rows_and_key(inputs, 8) == (rows, key)


def test_rows_are_put_together_and_each_gets_its_own_outputs_in_its_own_order() -> None:
    one = job([Z, Y], x=np.array([[1.0]]), text=np.array([b"a"], np.object_))
    other = job([Y], x=np.array([[2.0], [3.0]]), text=np.array([b"b", b"c"], np.object_))

    inputs, names = batching.joined([one, other])
    assert (inputs["x"].tolist(), inputs["text"].tolist()) == ([[1.0], [2.0], [3.0]], [b"a", b"b", b"c"])
    assert names == ["z", "y"]

    text, numbers = inputs["text"], np.repeat(inputs["x"], 2, axis=1)
    parts = batching.parted([one, other], names, [text, numbers])
    assert [[(tensor.name, tensor.datatype, tensor.array.tolist()) for tensor in part] for part in parts] == [
        [("z", "BYTES", [b"a"]), ("y", "FP32", [[1.0, 1.0]])],
        [("y", "FP32", [[2.0, 2.0], [3.0, 3.0]])],
    ]
    assert parts[1][0].array.base is numbers, "nothing is copied"
    assert parts[1][0].array.flags["C_CONTIGUOUS"]


def test_one_by_itself_is_not_copied_or_cut() -> None:
    only = job([Y], x=np.zeros((3, 2)))

    inputs, names = batching.joined([only])
    scalar = np.zeros(())

    assert (inputs, names) == (only.inputs, ["y"])
    assert batching.parted([only], names, [scalar])[0][0].array is scalar


@pytest.mark.parametrize(
    ("shapes", "fits"),
    [([(3, 2)], True), ([(3,), (3, 0)], True), ([(3,), (2,)], False), ([()], False), ([(6,)], False)],
)
def test_outputs_can_be_taken_apart_when_they_have_as_many_rows_as_the_inputs(
    shapes: list[tuple[int, ...]], fits: bool
) -> None:
    assert batching.fits(3, [np.zeros(shape) for shape in shapes]) is fits
