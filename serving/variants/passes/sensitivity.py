"""Which layers lose most in 8 bits: how far the model's answers move when one layer alone is quantized.

All layers are quantized once, with scales from calibration. Their roundings are then put into the model in floats, each
behind a switch, so that one session tells of every layer: a pass over the samples with that layer's switch on beside
one with all of them off. What is compared is noise to signal,

    mean over channels c of   sum (y'_c - y_c)^2 / sum (y_c - mean y_c)^2,      in decibels -10 log10 of it,

where channels are the second dimension of an output. A detector's are pixels and probabilities: over all of them at
once, noise that drowns the probabilities would be nothing beside the pixels. A channel that never changes on the
samples says nothing and is left out.

The most sensitive are then kept in floats, as few as bring the noise of the others together within the bound. That is
measured as well and not summed up, for noise of many layers is often less than its sum; how many it takes is found by
halving.
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from serving.tensors import Array
from serving.variants.passes import base

_SAMPLES = 32
_LONGEST_S = 300.0
"""For measuring layers; those whose turn does not come are quantized, and what they cost shows in what is left."""
_SILENT_DB = 120.0
"""No noise at all, in figures."""
_SWITCHES = "penstock.switches"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A node of the graph, and the noise in the answers when it alone is quantized, as a share of the signal."""

    name: str
    operator: str
    noise: float

    @property
    def sqnr_db(self) -> float:
        """Signal to noise, in decibels."""
        return decibels(self.noise)


def decibels(noise: float) -> float:
    """Signal to noise, of noise as a share of the signal."""
    return round(min(_SILENT_DB, -10 * math.log10(max(noise, 1e-30))), 1)


def found(
    quantized: Callable[[Sequence[str]], onnx.ModelProto],
    prepared: onnx.ModelProto,
    samples: base.Samples,
    least_db: float,
    folder: Path,
    told: base.Told,
) -> tuple[list[Layer], list[str], float]:
    """Every layer, those to keep in floats, and the signal to noise in decibels with them kept.

    ``quantized`` gives the model with the layers of these names in floats. PassRefused where no choice reaches
    ``least_db``.
    """
    batches = _some(samples)
    plain = _Session(prepared, folder / "plain.onnx")
    signal = _Signal([plain(inputs) for inputs in batches])
    layers = list(_measured(prepared, quantized(()), batches, signal, folder, told))
    order = [layer.name for layer in sorted(layers, key=lambda one: -one.noise)]
    left: dict[int, float] = {}

    def is_quiet(many: int) -> bool:
        session = _Session(quantized(order[:many]), folder / "mixed.onnx")
        left[many] = decibels(signal.noise([session(inputs) for inputs in batches]))
        return left[many] >= least_db

    many = bisect.bisect_left(range(len(order)), True, key=is_quiet)
    if many == len(order):
        raise base.PassRefused(
            f"quantize: no choice of layers keeps the answers {least_db:g} dB above the noise ({max(left.values()):g} "
            "dB at best); set a lower quantize.minSqnrDb, or leave quantize out"
        )
    return layers, order[:many], left[many]


def _some(samples: base.Samples) -> list[Mapping[str, Array]]:
    """At most ``_SAMPLES`` from all over, in batches of the size they come in."""
    counts = [_size(batch.inputs) for batch in samples()]
    chosen = np.unique(np.linspace(0, sum(counts) - 1, _SAMPLES).astype(int))
    parts: list[Mapping[str, Array]] = []
    for batch in samples():
        own = chosen[(chosen >= batch.first) & (chosen < batch.first + _size(batch.inputs))] - batch.first
        if own.size:
            parts.append({name: array[own] for name, array in batch.inputs.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return [
        {name: np.ascontiguousarray(array[first : first + counts[0]]) for name, array in joined.items()}
        for first in range(0, len(chosen), counts[0])
    ]


def _size(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))


class _Session:
    """A model that answers with its floating-point outputs."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        large = model.ByteSize() > 2**31 - 2**20
        onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for written in (path, path.with_name(f"{path.name}.data")):
            written.unlink(missing_ok=True)
        self._outputs = [one.name for one in self._session.get_outputs() if "float" in one.type]
        if not self._outputs:
            raise base.PassRefused("quantize: the model answers no floats, by which layers could be told apart")

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        answers: list[Array] = self._session.run(self._outputs, dict(inputs))
        return answers


class _Signal:
    """Answers to all batches as they should be."""

    def __init__(self, answers: Sequence[Sequence[Array]]) -> None:
        self._answers = [[_channels(one) for one in batch] for batch in answers]
        self._power = []
        for output in zip(*self._answers, strict=True):
            values = np.concatenate(output, axis=1)
            self._power.append(((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))

    def noise(self, answers: Sequence[Sequence[Array]]) -> float:
        """Of other answers, as a share of the signal: the mean over the channels that change."""
        shares = []
        for place, power in enumerate(self._power):
            apart = sum(
                ((_channels(batch[place]) - right[place]) ** 2).sum(axis=1)
                for batch, right in zip(answers, self._answers, strict=True)
            )
            changes = power > 0
            shares.append((np.asarray(apart) / np.where(changes, power, 1.0))[changes])
        everything = np.concatenate(shares)
        if not everything.size:
            raise base.PassRefused(
                "quantize: the model answers all calibration samples alike; give samples that differ"
            )
        value = float(everything.mean())
        return value if math.isfinite(value) else math.inf


def _channels(output: Array) -> npt.NDArray[np.float64]:
    """[channels, everything else]."""
    values = output.astype(np.float64)
    if values.ndim < 2:
        return values.reshape(1, -1)
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)


def _measured(
    prepared: onnx.ModelProto,
    quantized: onnx.ModelProto,
    batches: Sequence[Mapping[str, Array]],
    signal: _Signal,
    folder: Path,
    told: base.Told,
) -> Iterator[Layer]:
    """The layers, from the last to the first: what is near the answers hurts most."""
    model, switched = _switched(prepared, quantized)
    session = _Session(model, folder / "switched.onnx")
    began = time.monotonic()
    for number, node in enumerate(reversed(switched)):
        if time.monotonic() - began > _LONGEST_S:
            yield Layer(node.name, node.op_type, 0.0)
            continue
        switches = np.zeros(len(switched), np.bool_)
        switches[len(switched) - 1 - number] = True
        noise = signal.noise([session({**inputs, _SWITCHES: switches}) for inputs in batches])
        yield Layer(node.name, node.op_type, noise)
        told((number + 1) / len(switched))


def _switched(prepared: onnx.ModelProto, quantized: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """``prepared`` with the roundings of each node of ``quantized`` behind a switch, and those nodes."""
    model = copy.deepcopy(prepared)
    own = {one.domain: one for one in model.opset_import}
    for said in quantized.opset_import:
        if said.domain not in own:
            model.opset_import.append(said)
        elif own[said.domain].version < said.version:
            model = onnx.version_converter.convert_version(model, said.version)
            own = {one.domain: one for one in model.opset_import}
    graph = model.graph
    maker = {output: node for node in quantized.graph.node for output in node.output}
    rounding = {node.input[0]: node for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    after = {node.input[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    twins = {node.name: node for node in quantized.graph.node}
    constants = {one.name: one for one in quantized.graph.initializer}
    there = {one.name for one in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    switched: list[onnx.NodeProto] = []
    rounded: set[tuple[str, str]] = set()

    def constant(name: str) -> str:
        renamed = f"{name}/rounding"
        if renamed not in there:
            copied = graph.initializer.add()
            copied.CopyFrom(constants[name])
            copied.name = renamed
            there.add(renamed)
        return renamed

    def behind(switch: str, value: str, back: onnx.NodeProto, forth: onnx.NodeProto | None, output: str) -> None:
        """``output`` is ``value``, or with the switch on as ``forth`` and ``back`` have it; a weight has no forth."""
        result = f"{value}/{back.name}"
        if (value, back.name) not in rounded:
            rounded.add((value, back.name))
            source = f"{result}/whole"
            for node, takes, gives in ((forth, value, source), (back, source, result)):
                if node is None:
                    continue
                copied = onnx.NodeProto()
                copied.CopyFrom(node)
                copied.name = f"{node.name}/{value}"
                first = takes if node is forth or forth is not None else constant(node.input[0])
                copied.input[:] = [first, *(constant(name) for name in node.input[1:])]
                copied.output[:] = [gives]
                nodes.append(copied)
        nodes.append(helper.make_node("Where", [switch, result, value], [output]))

    for node in list(graph.node):
        twin = twins.get(node.name)
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        if twin is None or len(twin.input) != len(node.input):
            nodes.append(changed)
            continue
        switch = f"{node.name}/switch"
        inputs = [
            (place, maker[name])
            for place, name in enumerate(twin.input)
            if name in maker and maker[name].op_type == "DequantizeLinear"
        ]
        outputs = [(place, rounding[name]) for place, name in enumerate(twin.output) if name in rounding]
        if inputs or outputs:
            position = graph.initializer.add()
            position.CopyFrom(helper.make_tensor(f"{switch}/at", TensorProto.INT64, [], [len(switched)]))
            nodes.append(helper.make_node("Gather", [_SWITCHES, position.name], [switch]))
            switched.append(node)
        for place, back in inputs:
            changed.input[place] = f"{node.name}/in/{place}"
            forth = maker.get(back.input[0])
            behind(switch, node.input[place], back, forth, changed.input[place])
        for place, _ in outputs:
            changed.output[place] = f"{node.name}/out/{place}"
        nodes.append(changed)
        for place, forth in outputs:
            behind(switch, changed.output[place], after[forth.output[0]], forth, node.output[place])
    if not switched:
        raise base.PassRefused("quantize: nothing of the model was quantized; leave quantize out")
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(_SWITCHES, TensorProto.BOOL, [len(switched)]))
    return model, switched
