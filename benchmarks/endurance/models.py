"""Two models whose answers tell for which inputs and by which version they were computed.

``whole``: INT64, ``y = x + version · 2⁴⁰``. ``linear``: FP32, ``y = x · W + version · 2²⁰``; all numbers are whole and
below 2²⁴, so that they are exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4
WHOLE_STEP = 2**40
LINEAR_STEP = 2.0**20
MAX_LINEAR_VERSION = 8
_WEIGHTS = np.array([[1, 1], [1, 2], [1, 3], [1, 4]], np.float32)


def write_whole(path: Path, version: int) -> None:
    """The INT64 model, in place of what was there."""
    offset = numpy_helper.from_array(np.array(version * WHOLE_STEP, np.int64), "offset")
    nodes = [helper.make_node("Add", ["x", "offset"], ["y"])]
    _write(path, TensorProto.INT64, WIDTH, nodes, [offset])


def write_linear(path: Path, version: int) -> None:
    """The FP32 model, in place of what was there."""
    weights = numpy_helper.from_array(_WEIGHTS, "w")
    offset = numpy_helper.from_array(np.array(version * LINEAR_STEP, np.float32), "offset")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "offset"], ["y"])]
    _write(path, TensorProto.FLOAT, 2, nodes, [weights, offset])


def whole_version(x: list[int], y: list[int]) -> int | None:
    """The version that makes ``y`` of ``x``; None when none does."""
    versions = {divmod(b - a, WHOLE_STEP) for a, b in zip(x, y, strict=True)}
    version, rest = versions.pop()
    return None if versions or rest else version


def linear_version(x: list[int], y: list[float]) -> int | None:
    """The version that makes ``y`` of ``x``; None when none does."""
    a, b, c, d = x
    versions = {divmod(y[0] - (a + b + c + d), LINEAR_STEP), divmod(y[1] - (a + 2 * b + 3 * c + 4 * d), LINEAR_STEP)}
    version, rest = versions.pop()
    return None if versions or rest else int(version)


def _write(path: Path, kind: int, width: int, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> None:
    graph = helper.make_graph(
        nodes,
        "endurance",
        [helper.make_tensor_value_info("x", kind, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", kind, ["n", width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(".new")
    new.write_bytes(model.SerializeToString())
    new.replace(path)
