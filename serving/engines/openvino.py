"""OpenVINO, for ONNX files called ``….openvino.onnx``: for many a model and batch the fastest on a CPU.

It reads ONNX as it is, also with QuantizeLinear in it, so what is lowered to it stays one file of a format that is
screened. Types are kept: OpenVINO by itself computes in 16 bits where the CPU can, and here it does so only where the
file says it, in its metadata, because what was never evaluated must not be served.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino

from serving.engines import cpu, onnx_screen
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed
from serving.settings import DEFAULT, Settings
from serving.tensors import Array, Signature, TensorSpec

_PLACE = re.compile(r"Caught exception: |Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:")
_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
_DATATYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
}


class OpenVinoEngine:
    """One model, compiled for this CPU."""

    platform = "openvino"
    problem = ""
    may_loop = False

    def __init__(self, path: Path, said: Settings, findings: onnx_screen.Findings) -> None:
        if findings.loops:  # it runs what no input has a say in while it loads, and nothing ends that
            raise ArtifactRefused(f"{path} has a loop, which OpenVINO may run without an end; leave it to ONNX Runtime")
        precision = _precision(path, findings)
        try:
            core = openvino.Core()
            model = core.read_model(path)
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
                    "INFERENCE_NUM_THREADS": said.threads or cpu.limit(),
                    "NUM_STREAMS": 1,
                    # The models of one server would all be given the same cores.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except RuntimeError as error:
            raise ArtifactRefused(
                f"{path} is no model that OpenVINO can load ({_sentence(error)}); leave it to ONNX Runtime"
            ) from error
        self.may_block = findings.grows
        inputs = tuple(_spec(path, port, ()) for port in compiled.inputs)
        known = [spec.name for spec in inputs]
        outputs = tuple(_spec(path, port, known) for port in compiled.outputs)
        self.signature = Signature(inputs, outputs)
        self._places = {spec.name: place for place, spec in enumerate(outputs)}
        self._names = known
        self._request = compiled.create_infer_request()

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """Runs the model once; the answers are copies, because the next call writes where they lie."""
        for place, name in enumerate(self._names):
            # Memory is shared, and OpenVINO takes none that must not be written, as a request's bytes are.
            array = inputs[name] if inputs[name].flags.writeable else inputs[name].copy()
            self._request.set_input_tensor(place, openvino.Tensor(np.ascontiguousarray(array), shared_memory=True))
        try:
            if interrupt is None:
                self._request.infer()
            else:
                self._request.start_async()
                interrupt.arm(self._request.cancel)
                self._request.wait()
        except RuntimeError as error:
            raise InferenceFailed(f"the model failed: {_sentence(error)}") from error
        return [self._request.get_output_tensor(self._places[name]).data.copy() for name in outputs]

    def close(self) -> None:
        """Drops the compiled model, which frees its memory."""
        del self._request


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> OpenVinoEngine:
    """The engine with this ONNX file loaded, after it was screened."""
    return OpenVinoEngine(path, said, onnx_screen.screen(path))


def _precision(path: Path, findings: onnx_screen.Findings) -> str:
    """What the file says it computes in; ArtifactRefused where this CPU cannot."""
    said = findings.metadata.get(onnx_screen.PRECISION, "fp32")
    if said not in _PRECISIONS:
        raise ArtifactRefused(
            f"{path} says {onnx_screen.PRECISION} {said}, expected {' or '.join(_PRECISIONS)}; lower it again"
        )
    if said == "bf16" and not cpu.computes_bf16():
        raise ArtifactRefused(
            f"{path} computes in bf16, which this CPU cannot (it has neither {' nor '.join(cpu.BF16)}); "
            "lower it with precision fp32, or serve it on a node that can"
        )
    return said


def _spec(path: Path, port: openvino.ConstOutput, others: Sequence[str]) -> TensorSpec:
    """``others`` are names that a port may have as well, where a model gives what it takes."""
    names = sorted(port.get_names() - set(others)) or sorted(port.get_names())
    kind = port.get_element_type().get_type_name()
    if kind not in _DATATYPES:
        raise ArtifactRefused(
            f"{path} has '{names[0]}' of type {kind}, which the engine for OpenVINO does not take; "
            "leave it to ONNX Runtime"
        )
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(names[0], _DATATYPES[kind], shape)


def _sentence(error: Exception) -> str:
    """OpenVINO's own words, without its source files and lines."""
    return " ".join(_PLACE.sub("", str(error)).split())[:300]
