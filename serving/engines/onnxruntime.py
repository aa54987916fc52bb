"""The built-in engine: ONNX Runtime, on the CPUs this process may use unless its settings name other providers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from serving.engines import cpu, onnx_providers, onnx_screen, onnx_weights
from serving.engines.base import Interrupt
from serving.engines.onnx_weights import Copy
from serving.errors import ArtifactRefused, InferenceFailed, InvalidInput
from serving.settings import DEFAULT, Settings
from serving.tensors import Array, Signature, TensorSpec

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ONLY_FATAL = 4
_LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_STATUS = re.compile(r"Status Message: (?:\S+:\d+ \S.*?\) )?(.*)", re.DOTALL)


class OnnxRuntimeEngine:
    """One ONNX model in one session."""

    platform = "onnxruntime_onnx"
    problem = ""

    def __init__(self, path: Path, said: Settings, findings: onnx_screen.Findings, copy: Copy | None = None) -> None:
        asked = onnx_providers.named(path, said.onnxruntime.providers)
        options = _options(said)
        if copy is not None:  # it is optimised already
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        elif onnx_providers.CPU not in [name for name, _ in asked]:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._copy = copy
        try:
            self._session = onnxruntime.InferenceSession(
                str(path if copy is None else copy.path), options, providers=asked, enable_fallback=False
            )
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise ArtifactRefused(
                f"{path} is no model that ONNX Runtime can load ({_sentence(error)}); check how it was exported"
            ) from error
        onnx_providers.check(path, asked, self._session)
        self.may_loop = findings.loops
        self.may_block = findings.loops or findings.grows
        self.signature = Signature(
            inputs=tuple(_spec(path, item) for item in self._session.get_inputs()),
            outputs=tuple(_spec(path, item) for item in self._session.get_outputs()),
        )
        self._text_outputs = any(spec.datatype == "BYTES" for spec in self.signature.outputs)
        self._text_inputs = [spec.name for spec in self.signature.inputs if spec.datatype == "BYTES"]

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """Runs the session; values it cannot compute with are the client's fault only where it says so."""
        if self._text_inputs:
            inputs = {**inputs, **{name: _decoded(name, inputs[name]) for name in self._text_inputs}}
        options = None
        if interrupt is not None:
            options = onnxruntime.RunOptions()
            options.log_severity_level = _ONLY_FATAL
            interrupt.arm(lambda: setattr(options, "terminate", True))
        try:
            results: list[Array] = self._session.run(outputs, inputs, options)
        except ort_errors.InvalidArgument as error:
            raise InvalidInput(f"the model cannot take these inputs: {_sentence(error)}") from error
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            self._check_symbols(inputs)
            raise InferenceFailed(f"the model failed: {_sentence(error)}") from error
        return [_encoded(result) for result in results] if self._text_outputs else results

    def _check_symbols(self, inputs: Mapping[str, Array]) -> None:
        """InvalidInput when sizes differ which the model calls by one name.

        Asked after a failure alone: ONNX Runtime does not ask for it, and a size of 1 may well stand for any other.
        """
        seen: dict[str, tuple[str, int]] = {}
        for item in self._session.get_inputs():
            shape = inputs[item.name].shape
            for place, symbol in enumerate(item.shape):
                if not isinstance(symbol, str):
                    continue
                where, size = seen.setdefault(symbol, (f"dimension {place} of '{item.name}'", shape[place]))
                if size != shape[place]:
                    raise InvalidInput(
                        f"input '{item.name}' has shape {list(shape)}, expected {size} instead of {shape[place]} in "
                        f"dimension {place}: the model says that this and {where} have one size, '{symbol}'"
                    )

    def close(self) -> None:
        """Drops the session, which frees its memory."""
        del self._session
        if self._copy is not None:
            self._copy.release()


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> OnnxRuntimeEngine:
    """The engine with this ONNX file loaded, after it was screened; with one copy of its weights for all who share."""
    findings = onnx_screen.screen(path)
    copy = None
    if shared is not None and said.onnxruntime.providers == (onnx_providers.CPU,):
        copy = onnx_weights.held(path, findings.locations, shared, lambda: _options(said))
    try:
        return OnnxRuntimeEngine(path, said, findings, copy)
    except BaseException:
        if copy is not None:
            copy.release()
        raise


def _options(said: Settings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = said.threads or cpu.limit()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_FATAL
    options.graph_optimization_level = _LEVELS[said.onnxruntime.graph_optimization]
    # Threads that spin between inferences would take the CPU from the event loop beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _spec(path: Path, item: Any) -> TensorSpec:
    datatype = DATATYPES.get(item.type)
    if datatype is None:
        raise ArtifactRefused(
            f"{path} has '{item.name}' of type {item.type}, which V2 clients cannot send or read; "
            "export the model with plain tensors (for scikit-learn: without ZipMap)"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in item.shape)
    return TensorSpec(item.name, datatype, shape)


def _encoded(result: Array) -> Array:
    if result.dtype.kind not in "OU":
        return result
    flat = np.empty(result.size, np.object_)
    flat[:] = [str(element).encode() for element in result.ravel()]
    return flat.reshape(result.shape)


def _decoded(name: str, array: Array) -> Array:
    try:
        flat = np.empty(array.size, np.object_)
        flat[:] = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input '{name}' holds bytes that are no UTF-8 text, which ONNX strings must be") from error
    return flat.reshape(array.shape)


def _sentence(error: Exception) -> str:
    """ONNX Runtime's own words, without its source file and line."""
    found = _STATUS.search(str(error))
    text = found.group(1) if found else str(error)
    return " ".join(re.sub(r"/?\S*onnxruntime\S*/\S+:\d+\s*", "", text).split())[:300]
