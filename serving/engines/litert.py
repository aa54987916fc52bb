"""LiteRT, for ``.tflite`` files: small models on small CPUs, and whole-integer ones anywhere.

*What a client sees are the numbers that the model means.* A file of integers says for each input and output what they
stand for, ``real = scale * (integer - zero_point)``; here floats go in and come out, and the rest is done on the way
(fed with floats as if they were its integers, a model of digits had 9.7 % right instead of 99.0). Integers without a
scale, such as a picture's bytes, stay integers.

*Batches.* A file whose first dimension is free is resized. One whose signature is called ``row`` (``lower`` writes it)
computes one sample at a time and says so, and is asked for each row of a batch; any other takes the shape it has.

There is no verifier for these files in Python, and LiteRT trusts what stands in them: for those of strangers say
``isolation: process``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from serving.engines import cpu
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed
from serving.settings import DEFAULT, Settings
from serving.tensors import DTYPES, Array, Signature, TensorSpec

ROW = "row"
"""The signature of a file that computes one sample at a time, whatever shape its tensors have."""
_MAGIC = b"TFL3"
_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if name != "BYTES"}
_LOOPS = frozenset({"WHILE"})


@dataclasses.dataclass(frozen=True)
class _Port:
    """One input or output: where it is, and what its integers mean."""

    index: int
    spec: TensorSpec
    dtype: np.dtype[Any]
    """In the file."""
    scale: float
    """0: what it holds is what it means."""
    zero_point: int

    def stored(self, array: Array) -> Array:
        """As the file has it."""
        if not self.scale:
            return array
        limits = np.iinfo(self.dtype)
        whole: Array = np.clip(np.rint(array / self.scale) + self.zero_point, limits.min, limits.max)
        return whole.astype(self.dtype)

    def meant(self, array: Array) -> Array:
        """The numbers that it means."""
        if not self.scale:
            return array
        return (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class LiteRtEngine:
    """One model in one interpreter."""

    platform = "litert"
    problem = ""
    may_block = True
    """Nothing says beforehand what its operators take, and nothing stops one."""

    def __init__(self, path: Path, said: Settings) -> None:
        with path.open("rb") as file:
            head = file.read(8)
        if head[4:] != _MAGIC:
            raise ArtifactRefused(f"{path} is no TFLite model (it does not say {_MAGIC.decode()}); convert it again")
        try:
            self._interpreter = Interpreter(str(path), num_threads=said.threads or cpu.limit())
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ArtifactRefused(
                f"{path} is no model that LiteRT can load ({_sentence(error)}); check how it was converted"
            ) from error
        signatures = self._interpreter.get_signature_list()
        if len(signatures) > 1:
            raise ArtifactRefused(
                f"{path} has the signatures {', '.join(sorted(signatures))}; convert it with one alone"
            )
        self._by_rows = ROW in signatures
        names = next((self._interpreter.get_signature_runner(key) for key in signatures), None)
        self._inputs = self._ports(path, self._interpreter.get_input_details(), names and names.get_input_details())
        self._outputs = self._ports(path, self._interpreter.get_output_details(), names and names.get_output_details())
        self.operators = sorted({one["op_name"] for one in self._interpreter._get_ops_details()})
        self.may_loop = not _LOOPS.isdisjoint(self.operators)
        self.signature = Signature(
            tuple(port.spec for port in self._inputs), tuple(port.spec for port in self._outputs)
        )
        self._places = {port.spec.name: port for port in self._outputs}
        self._shapes = [tuple(one["shape"]) for one in self._interpreter.get_input_details()]

    def _ports(self, path: Path, details: Sequence[Mapping[str, Any]], named: Mapping[str, Any] | None) -> list[_Port]:
        names = {one["index"]: name for name, one in (named or {}).items()}
        ports = []
        for one in details:
            dtype, (scale, zero_point) = np.dtype(one["dtype"]), one["quantization"]
            if dtype not in _DATATYPES:
                raise ArtifactRefused(f"{path} has '{one['name']}' of type {dtype}, expected numbers; convert it again")
            scale = scale if dtype.kind in "iu" else 0.0
            shape = [int(size) for size in one.get("shape_signature", one["shape"])]
            if self._by_rows:
                shape[0] = -1
            kind = "FP32" if scale else _DATATYPES[dtype]
            spec = TensorSpec(names.get(one["index"], one["name"]), kind, tuple(shape))
            ports.append(_Port(one["index"], spec, dtype, float(scale), int(zero_point)))
        return ports

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """Runs the model, for each row where it computes one at a time; between two it may be interrupted."""
        given = [port.stored(inputs[port.spec.name]) for port in self._inputs]
        wanted = [self._places[name] for name in outputs]
        if not self._by_rows:
            return [port.meant(array) for port, array in zip(wanted, self._run(given, wanted), strict=True)]
        rows = []
        for row in range(len(given[0])):
            if interrupt is not None and interrupt.fired:
                raise InferenceFailed("the model failed: it was interrupted")
            rows.append(self._run([array[row : row + 1] for array in given], wanted))
        if not rows:
            empty = ((0, *port.spec.shape[1:]) for port in wanted)
            return [np.zeros(shape, DTYPES[port.spec.datatype]) for shape, port in zip(empty, wanted, strict=True)]
        return [port.meant(np.concatenate(parts)) for port, parts in zip(wanted, zip(*rows, strict=True), strict=True)]

    def _run(self, given: Sequence[Array], wanted: Sequence[_Port]) -> list[Array]:
        try:
            if (shapes := [array.shape for array in given]) != self._shapes:
                for port, shape in zip(self._inputs, shapes, strict=True):
                    self._interpreter.resize_tensor_input(port.index, shape)
                self._shapes = []  # unknown until the next line has worked
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for port, array in zip(self._inputs, given, strict=True):
                self._interpreter.set_tensor(port.index, np.ascontiguousarray(array))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(port.index) for port in wanted]
        except (RuntimeError, ValueError) as error:
            raise InferenceFailed(f"the model failed: {_sentence(error)}") from error

    def close(self) -> None:
        """Drops the interpreter, which frees its memory."""
        del self._interpreter


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> LiteRtEngine:
    """The engine with this TFLite file loaded."""
    return LiteRtEngine(path, said)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
