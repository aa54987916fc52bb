from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.engines import artifact
from serving.engines.base import Interrupt
from serving.models import rows
from serving.models.rows import Took
from tests.rig import onnx_models

FLOAT = TensorProto.FLOAT


def found(path: Path) -> rows.Rows:
    engine = artifact.load(path)
    try:
        return rows.tried(engine, Interrupt())
    finally:
        engine.close()


def saved(tmp_path: Path, nodes: list[Any], x: Any, y: Any, *fixed: onnx.TensorProto) -> Path:
    return onnx_models.save(tmp_path / "m.onnx", helper.make_graph(nodes, "g", [x], [y], list(fixed)))


def x(*shape: int | str, element_type: int = FLOAT) -> Any:
    return onnx_models.value("x", element_type, shape)


def y(*shape: int | str, element_type: int = FLOAT) -> Any:
    return onnx_models.value("y", element_type, shape)


def whole(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def test_rows_of_a_linear_model_are_independent(tmp_path: Path) -> None:
    linear = found(onnx_models.linear(tmp_path / "m.onnx"))

    assert linear.independent is True
    assert linear.finding.startswith("computes rows one by one, 4 together in ")
    assert linear.sample is not None
    assert linear.sample["x"].shape == (1, 4)


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "FP64", "BF16", "INT8", "UINT64", "BOOL", "BYTES"])
def test_every_datatype_is_tried(tmp_path: Path, datatype: str) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text(f'{{"inputs": [{{"name": "x", "datatype": "{datatype}", "shape": [-1, 40]}}]}}')

    assert found(path).independent is True


def softmax_over_rows(tmp_path: Path) -> Path:
    return saved(tmp_path, [helper.make_node("Softmax", ["x"], ["y"], axis=0)], x("n", 4), y("n", 4))


def a_sum_of_all(tmp_path: Path) -> Path:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)
    return saved(tmp_path, [node], x("n", 4), y("n", 1), whole("axes", 0, 1))


def quantised_as_a_whole(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return saved(tmp_path, nodes, x("n", 4), y("n", 4))


def running_total(tmp_path: Path) -> Path:
    axis = numpy_helper.from_array(np.asarray(0, np.int64), "axis")
    return saved(tmp_path, [helper.make_node("CumSum", ["x", "axis"], ["y"])], x("n", 4), y("n", 4), axis)


def two_rows_to_one(tmp_path: Path) -> Path:
    return saved(tmp_path, [helper.make_node("Reshape", ["x", "to"], ["y"])], x("n", 4), y("m", 2), whole("to", -1, 2))


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (softmax_over_rows, "mixes rows: output 'y' of one changes with those beside it"),
        (quantised_as_a_whole, "mixes rows: output 'y' of one changes with those beside it"),
        (running_total, "mixes rows: output 'y' of one changes with those beside it"),
        (two_rows_to_one, "gives output 'y' with another number of rows than its inputs have"),
    ],
)
def test_a_model_that_mixes_rows_is_found_out(tmp_path: Path, make: Any, finding: str) -> None:
    assert found(make(tmp_path)) == rows.Rows(False, finding)


def fixed_input(tmp_path: Path) -> Path:
    return saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], x(1, 4), y("n", 4))


def test_an_input_without_a_free_first_dimension_has_no_rows(tmp_path: Path) -> None:
    assert found(fixed_input(tmp_path)) == rows.Rows(False, "takes input 'x' as [1, 4], without a free first dimension")


def fixed_output(tmp_path: Path) -> Path:
    return saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], x("n", 4), y(1, 4))


def at_random(tmp_path: Path) -> Path:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    return saved(tmp_path, nodes, x("n", 4), y("n", 4))


def constant(tmp_path: Path) -> Path:
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    return saved(tmp_path, [helper.make_node("Mul", ["x", "zero"], ["y"])], x("n", 4), y("n", 4), zero)


def table_of_two(tmp_path: Path) -> Path:
    table = numpy_helper.from_array(np.ones((2, 3), np.float32), "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return saved(tmp_path, [node], x("n", element_type=TensorProto.INT64), y("n", 3), table)


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (fixed_output, "gives output 'y' as [1, 4], without a free first dimension"),
        (a_sum_of_all, "gives output 'y' as [1, 1], without a free first dimension"),
        (at_random, "gives another answer each time (output 'y')"),
        (constant, "answers random inputs alike, so nothing can be told from it"),
        (table_of_two, "refuses random inputs ("),
    ],
)
def test_a_model_of_which_nothing_can_be_said_is_told_apart(tmp_path: Path, make: Any, finding: str) -> None:
    outcome = found(make(tmp_path))

    assert (outcome.independent, outcome.finding[: len(finding)]) == (None, finding)


def test_a_model_that_may_loop_is_not_tried(tmp_path: Path) -> None:
    path = onnx_models.endless(tmp_path / "m.onnx", always=False)

    assert found(path).independent is False  # its input is a scalar


def test_free_dimensions_are_made_as_large_as_the_model_needs(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((1, 1, 9, 9), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]

    convolution = found(saved(tmp_path, nodes, x("n", 1, "h", "w"), y("n", 1, "a", "b"), weights))

    assert convolution.independent is True
    assert convolution.sample is not None
    assert convolution.sample["x"].shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("one", "together", "gain"),
    [
        ([Took(0.5, 0.002), Took(0.003, 0.004)], [Took(0.4, 0.004)], 2.0),  # the least of each, in processor time
        ([Took(0.002, 0.004)], [Took(0.004, 0.016)], 1.0),  # spread over more threads, but no less work
        ([Took(0.002, 0.0), Took(0.002, 0.01)], [Took(0.004, 0.0)], 2.0),  # ticks of 10 ms: by the wall's clock
        ([Took(0.002, 0.0)], [Took(0.004, 0.01)], 2.0),
    ],
)
def test_what_joining_gains_is_told_from_the_least_of_several_calls(
    one: list[Took], together: list[Took], gain: float
) -> None:
    assert rows.gain(4, one, together) == gain
