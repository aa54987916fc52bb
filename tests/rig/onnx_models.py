"""Small ONNX models made on the spot: what a test needs one to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


def save(path: Path, graph: onnx.GraphProto) -> Path:
    """Writes a model with this graph."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def linear(path: Path, scale: float = 1.0) -> Path:
    """``y = x @ WEIGHTS * scale`` for x FP32 [-1, 4]."""
    return save(
        path,
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "linear",
            [value("x", TensorProto.FLOAT, ["n", 4])],
            [value("y", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(np.asarray(WEIGHTS * scale, np.float32), "w")],
        ),
    )


def echo(path: Path, element_type: int) -> Path:
    """``y = x`` for x of any ONNX element type, shape [-1]."""
    return save(
        path,
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "echo",
            [value("x", element_type, ["n"])],
            [value("y", element_type, ["n"])],
        ),
    )


def endless(path: Path, always: bool = True) -> Path:
    """A Loop without end: for every input, or only where the input ``go`` is true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("v_in", TensorProto.FLOAT, [1]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("v_out", TensorProto.FLOAT, [1])],
    )
    fixed = [helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])]
    if always:
        fixed.append(helper.make_tensor("go", TensorProto.BOOL, [], [True]))
    return save(
        path,
        helper.make_graph(
            [helper.make_node("Loop", ["", "go", "v"], ["y"], body=body)],
            "endless",
            [] if always else [value("go", TensorProto.BOOL, [])],
            [value("y", TensorProto.FLOAT, [1])],
            fixed,
        ),
    )


def deaf(path: Path) -> Path:
    """``y`` = how many of ``n`` empty boxes overlap no other: one node, whose time grows with the square of n.

    ONNX Runtime looks up between nodes only, so nothing stops it for the time that node takes (200,000: 20 s and more).
    """
    int64 = TensorProto.INT64
    return save(
        path,
        helper.make_graph(
            [
                helper.make_node("Concat", ["one", "n", "four"], ["boxes_shape"], axis=0),
                helper.make_node("Concat", ["one", "one", "n"], ["scores_shape"], axis=0),
                helper.make_node("ConstantOfShape", ["boxes_shape"], ["boxes"]),
                helper.make_node("ConstantOfShape", ["scores_shape"], ["scores"]),
                helper.make_node("NonMaxSuppression", ["boxes", "scores", "n"], ["chosen"]),
                helper.make_node("Shape", ["chosen"], ["y"], start=0, end=1),
            ],
            "deaf",
            [value("n", int64, [1])],
            [value("y", int64, [1])],
            [helper.make_tensor("one", int64, [1], [1]), helper.make_tensor("four", int64, [1], [4])],
        ),
    )


def bomb(path: Path) -> Path:
    """``y`` = the sum of ``n`` zeros of 4 bytes each, all of which it makes."""
    return save(
        path,
        helper.make_graph(
            [helper.make_node("ConstantOfShape", ["n"], ["many"]), helper.make_node("ReduceSum", ["many"], ["y"])],
            "bomb",
            [value("n", TensorProto.INT64, [1])],
            [value("y", TensorProto.FLOAT, [1])],
        ),
    )


def table(path: Path, mebibytes: int, scale: float = 1.0) -> Path:
    """``y`` = ``x * scale``, 256 times, looked up in a table of so much memory; x INT64 [-1] below 1024."""
    rows = np.repeat(np.arange(mebibytes * 1024, dtype=np.float32)[:, None] * np.float32(scale), 256, axis=1)
    return save(
        path,
        helper.make_graph(
            [helper.make_node("Gather", ["table", "x"], ["y"])],
            "table",
            [value("x", TensorProto.INT64, ["n"])],
            [value("y", TensorProto.FLOAT, ["n", 256])],
            [numpy_helper.from_array(rows, "table")],
        ),
    )


def value(name: str, element_type: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """The declaration of an input or an output."""
    return helper.make_tensor_value_info(name, element_type, list(shape))
