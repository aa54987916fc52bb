"""The models that every server is given, made from a seed, and one request to each with the answer it must get.

- ``mlp``: 16 → 32 → 4, so small (6 µs) that what is measured is the server around it;
- ``cnn``: 3×224×224 → 1000 in about 4 ms, with an input of 602 KB;
- ``deep``: 16 → 4 in about 10 ms, in products of matrices that a batch makes no cheaper: bound by the engine;
- ``wide``: four layers of 2048, 50 MB: one request reads all weights, as 32 together do, so batching pays.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import engine

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A model on disk and what it makes of one input."""

    name: str
    path: Path
    given: Floats
    expected: Floats


_COMPUTE_S = 1.0
NAMES = ("mlp", "cnn", "deep", "wide")


def made(name: str, folder: Path) -> Model:
    """The model of that name in a folder of its own in ``folder``, written there unless it is."""
    shape, graph = _MODELS[name]
    path = folder / name / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        proto = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto)
        onnx.save(proto, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
    # Six decimals, as JSON from the field has them; more would be digits of a conversion.
    given = np.round(np.random.default_rng(1).random((1, *shape)), 6).astype(np.float32)
    return Model(name, path, given, engine.session(path).run(None, {engine.INPUT: given})[0])


def compute_us(model: Model) -> float:
    """Processor time of one inference alone: no server can need less for a request that it does not batch."""
    session, feed = engine.session(model.path), {engine.INPUT: model.given}
    times = []
    began = time.monotonic()
    while time.monotonic() - began < _COMPUTE_S:
        before = time.process_time()
        session.run(None, feed)
        times.append(time.process_time() - before)
    return statistics.median(times) * 1e6


class _Graph:
    """Nodes and weights, as they come."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, *shape: int, scale: float) -> str:
        name = f"w{len(self._weights)}"
        values = (self._random.standard_normal(shape) * scale).astype(np.float32)
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def shape(self, *sizes: int) -> str:
        """A constant for Reshape."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        return name

    def dense(self, x: str, width: int, to: int, output: str = "") -> str:
        weights = self.weight(width, to, scale=width**-0.5), self.weight(to, scale=0.1)
        return self.add("Gemm", x, *weights, output=output)

    def convolution(self, x: str, channels: int, to: int, size: int, stride: int) -> str:
        weights = (
            self.weight(to, channels, size, size, scale=(channels * size * size) ** -0.5),
            self.weight(to, scale=0.01),
        )
        shape: dict[str, Any] = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [size // 2] * 4}
        return self.add("Conv", x, *weights, **shape)

    def done(self, shape: tuple[int, ...], classes: int) -> onnx.GraphProto:
        given = helper.make_tensor_value_info(engine.INPUT, TensorProto.FLOAT, ["N", *shape])
        answer = helper.make_tensor_value_info(engine.OUTPUT, TensorProto.FLOAT, ["N", classes])
        return helper.make_graph(self._nodes, "benchmark", [given], [answer], self._weights)


def _dense(*widths: int) -> onnx.GraphProto:
    graph, x = _Graph(), engine.INPUT
    *hidden, last = itertools.pairwise(widths)
    for width, to in hidden:
        x = graph.add("Relu", graph.dense(x, width, to))
    graph.dense(x, *last, output=engine.OUTPUT)
    return graph.done((widths[0],), widths[-1])


def _convolutional() -> onnx.GraphProto:
    """A residual net on 224×224 that ends in 7×7, as the large ones of its kind do."""
    graph = _Graph()
    x = graph.add("Relu", graph.convolution(engine.INPUT, 3, 32, 7, 4))
    for channels in (32, 64, 128, 256):
        if channels > 32:
            x = graph.add("Relu", graph.convolution(x, channels // 2, channels, 3, 2))
        inner = graph.add("Relu", graph.convolution(x, channels, channels, 3, 1))
        x = graph.add("Relu", graph.add("Add", x, graph.convolution(inner, channels, channels, 3, 1)))
    graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), 256, 1000, output=engine.OUTPUT)
    return graph.done((3, 224, 224), 1000)


def _deep() -> onnx.GraphProto:
    """Each request becomes a matrix of its own, multiplied again and again."""
    graph, side = _Graph(), 256
    x = graph.dense(engine.INPUT, 16, side * side)
    x = graph.add("Reshape", x, graph.shape(-1, side))
    for _ in range(28):
        x = graph.add("Relu", graph.dense(x, side, side))
    x = graph.add("ReduceMean", graph.add("Reshape", x, graph.shape(-1, side, side)), axes=[1], keepdims=0)
    graph.dense(x, side, 4, output=engine.OUTPUT)
    return graph.done((16,), 4)


_MODELS: Mapping[str, tuple[tuple[int, ...], Callable[[], onnx.GraphProto]]] = {
    "mlp": ((16,), functools.partial(_dense, 16, 32, 4)),
    "cnn": ((3, 224, 224), _convolutional),
    "deep": ((16,), _deep),
    "wide": ((16,), functools.partial(_dense, 16, 2048, 2048, 2048, 2048, 4)),
}
