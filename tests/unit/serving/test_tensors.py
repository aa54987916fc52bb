import numpy as np
import pytest

from serving import tensors
from serving.errors import InvalidInput
from serving.tensors import Signature, Tensor, TensorSpec

X = TensorSpec("x", "FP32", (-1, 4))
N = TensorSpec("n", "INT64", ())
MODEL = Signature(inputs=(X, N), outputs=(TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "BYTES", (1,))))


def fp32(*shape: int) -> Tensor:
    return Tensor("x", "FP32", np.zeros(shape, np.float32))


def int64(*shape: int) -> Tensor:
    return Tensor("n", "INT64", np.zeros(shape, np.int64))


def test_inputs_that_fit_are_bound_by_name() -> None:
    x, n = fp32(2, 4), int64()

    bound = MODEL.bind("digits", [n, x])

    assert list(bound) == ["x", "n"]
    assert bound["x"] is x.array
    assert bound["n"] is n.array


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([fp32(2, 4)], "input 'n' of model 'digits' is missing; given: 'x', expected: 'x', 'n'"),
        ([], "input 'x' of model 'digits' is missing; given: none, expected: 'x', 'n'"),
        (
            [Tensor("x", "FP64", np.zeros((2, 4))), int64()],
            "input 'x' of model 'digits' has datatype FP64, expected FP32",
        ),
        ([fp32(2, 5), int64()], "input 'x' of model 'digits' has shape [2, 5], expected [-1, 4]"),
        ([fp32(4), int64()], "input 'x' of model 'digits' has shape [4], expected [-1, 4]"),
        ([fp32(1, 4), int64(1)], "input 'n' of model 'digits' has shape [1], expected []"),
        ([fp32(1, 4), fp32(1, 4)], "input 'x' of model 'digits' was given twice; give each input once"),
        (
            [fp32(1, 4), int64(), Tensor("w", "FP32", np.zeros(1, np.float32))],
            "model 'digits' has no input 'w'; expected: 'x', 'n'",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_named_with_what_was_given_and_what_is_expected(
    given: list[Tensor], message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        MODEL.bind("digits", given)

    assert str(refused.value) == message


def test_outputs_are_given_in_the_order_asked_and_all_of_them_when_none_is_named() -> None:
    assert [spec.name for spec in MODEL.wanted("digits", ["z", "y"])] == ["z", "y"]
    assert [spec.name for spec in MODEL.wanted("digits", [])] == ["y", "z"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["q"], "model 'digits' has no output 'q'; it gives: 'y', 'z'"),
        (["y", "y"], "output 'y' of model 'digits' was asked for twice; ask once"),
    ],
)
def test_an_output_that_cannot_be_given_is_named(names: list[str], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        MODEL.wanted("digits", names)

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ([2, -1], "tensor 'x' has shape [2, -1], expected whole numbers from 0 up"),
        ([2.0], "tensor 'x' has shape [2.0], expected whole numbers from 0 up"),
        ([True], "tensor 'x' has shape [True], expected whole numbers from 0 up"),
        ([None], "tensor 'x' has shape [None], expected whole numbers from 0 up"),
        ([2**40, 2**40], "tensor 'x' has shape [1099511627776, 1099511627776], expected at most 32 dimensions "
                         "and 2^60 elements"),
        ([0, 2**40, 2**40], "tensor 'x' has shape [0, 1099511627776, 1099511627776], expected at most 32 dimensions "
                            "and 2^60 elements"),
    ],
)  # fmt: skip
def test_a_shape_is_whole_numbers_of_a_size_that_can_be(dimensions: list[object], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        tensors.shape("x", dimensions)

    assert str(refused.value) == message


def test_a_datatype_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as refused:
        tensors.dtype("x", "FLOAT")

    assert str(refused.value) == (
        "tensor 'x' has datatype 'FLOAT', expected one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, "
        "INT64, FP16, BF16, FP32, FP64, BYTES"
    )
