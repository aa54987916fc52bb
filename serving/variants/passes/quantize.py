"""``quantize``: 8-bit integers, by ONNX Runtime's quantizer, with its traps avoided.

*Static* (the default) writes QuantizeLinear/DequantizeLinear pairs whose scales come from calibration samples. Left out
(``exclude: auto``) is whatever no Conv or MatMul stands behind, and the last of these themselves. The decode tail of a
detector mixes pixel coordinates with probabilities in one tensor, and one scale for both halves its AP (measured: 93.0
to 52.5); what the last layers say are such coordinates, and 256 steps over their range are too coarse (without the tail
alone: 86.1; without both: no loss, and 7 % more CPU time).

``exclude: sensitive`` knows nothing of tails: it measures what each layer alone does to the answers and keeps in floats
those that do most, until the answers are ``minSqnrDb`` above the noise (``sensitivity``).

*Dynamic* finds the scales at run time. ONNX Runtime has no fast kernel for dynamic convolutions (measured: 5 times
slower than fp32), so a graph with convolutions is done as asked and left to the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from serving.tensors import Array
from serving.variants.passes import base, sensitivity
from serving.variants.recipe import Quantize

_METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
    "percentile": quantization.CalibrationMethod.Percentile,
}
_LEAST_OPSET = 13
"""From here on weights may have a scale for each channel; ONNX Runtime writes them without looking."""
_HEAVY = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def make(model: Path, folder: Path, asked: Quantize, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """Refused without calibration samples where they are needed, and where nothing can be quantized."""
    prepared = folder / "prepared.onnx"
    # Symbolic shape inference fails on dynamic batches of some exporters, and static quantization does not need it.
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    whole = base.read(prepared)
    opset = next(one.version for one in whole.opset_import if one.domain in ("", "ai.onnx"))
    if opset < _LEAST_OPSET:
        whole = onnx.version_converter.convert_version(whole, _LEAST_OPSET)
    graph = whole.graph
    _name_nodes(graph)
    onnx.save(whole, prepared)
    if not any(node.op_type in _HEAVY for node in graph.node):
        raise base.PassRefused(f"quantize: the model has none of {', '.join(_HEAVY)}; leave quantize out")
    target, ranges = folder / base.FILE, folder / "ranges.json"
    if asked.mode == "dynamic":
        quantization.quantize_dynamic(str(prepared), str(target), per_channel=asked.per_channel)
        prepared.unlink()
        return {}
    if samples is None:
        raise base.PassRefused("quantize: static quantization needs samples; name some in quantize.calibration.uri")

    def quantized(left_out: Sequence[str]) -> onnx.ModelProto:
        quantization.quantize_static(
            str(prepared),
            str(target),
            _Reader(samples),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=asked.per_channel,
            nodes_to_exclude=list(left_out),
            calibrate_method=_METHODS[asked.method],
            extra_options={"CalibStridedMinMax": 1},
            calibration_cache_path=ranges,
        )
        return base.read(target)

    facts: dict[str, Any] = {}
    if asked.exclude == "sensitive":
        layers, left_out, sqnr_db = sensitivity.found(quantized, whole, samples, asked.min_sqnr_db, folder, told)
        kept = set(left_out)
        facts["sqnrDb"] = sqnr_db
        facts["sensitivity"] = [
            {"layer": one.name, "operator": one.operator, "sqnrDb": one.sqnr_db, "kept": one.name in kept}
            for one in sorted(layers, key=lambda one: -one.noise)
        ]
    else:
        left_out = [*tail(graph), *last(graph)] if asked.exclude == "auto" else []
    quantized(left_out)
    prepared.unlink()
    ranges.unlink()
    return {"excluded": left_out, **facts}


def _name_nodes(graph: onnx.GraphProto) -> None:
    """What has no name of its own gets one: by names layers are left out."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}_{'_'.join(node.output)}"
        seen.add(node.name)


def tail(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that no Conv or MatMul depends on."""
    maker = {output: node for node in graph.node for output in node.output}
    before: set[str] = set()
    waiting = [node for node in graph.node if node.op_type in _HEAVY]
    while waiting:
        node = waiting.pop()
        if node.name not in before:
            before.add(node.name)
            waiting.extend(maker[name] for name in node.input if name in maker)
    return [node.name for node in graph.node if node.name not in before]


def last(graph: onnx.GraphProto) -> list[str]:
    """Names of the Convs and MatMuls that no other one depends on; none where that is all of them."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    behind = set(tail(graph))
    heavy = [node for node in graph.node if node.op_type in _HEAVY]
    found = [
        node.name
        for node in heavy
        if all(user.name in behind for output in node.output for user in users.get(output, []))
    ]
    return found if len(found) < len(heavy) else []


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """The samples as stretches of one batch, after each of which ONNX Runtime forgets what it saw but the histograms.

    In one stretch it keeps every activation of every sample, and fails where the last batch is a smaller one.
    """

    def __init__(self, samples: base.Samples) -> None:
        self._samples = samples
        self._batches = samples()
        self._left = 0

    def __len__(self) -> int:
        return sum(1 for _ in self._samples())

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = end_index - start_index

    def get_next(self) -> dict[str, Array] | None:
        if not self._left:
            return None
        self._left -= 1
        return dict(next(self._batches).inputs)
