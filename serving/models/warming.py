"""Requests a model answers before anybody can ask it: so that its memory has grown and its pages are there.

Said in its settings, run one after the other between the trial inference and readiness::

    {"warmUp": [{"file": "warm.json", "count": 5}, {"batchSizes": [1, 8, 32]}, {"shapes": {"image": [4, 3, 224, 224]}}]}

A file is a V2 request in JSON beside the model's file. The others are zeros: of the shapes given, or of one row as
often as each size says. One that fails refuses the model, because it says that the model cannot do what its owner
expects of it.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from serving.engines.base import Engine, Interrupt
from serving.errors import ArtifactRefused, InvalidInput, ServingError
from serving.protocols import v2
from serving.settings import Settings, WarmUp
from serving.tensors import DTYPES, Array, Tensor, TensorSpec

_MAX_FILE_BYTES = 64 * 2**20

Call = tuple[Mapping[str, Array], Sequence[str]]


def run(engine: Engine, path: Path, said: Settings) -> None:
    """Gives the engine every warm-up; ArtifactRefused names the first that it does not answer in time."""
    for warm_up in said.warm_up:
        try:
            for inputs, outputs in _calls(engine, path, warm_up):
                for _ in range(warm_up.count):
                    _within(said.limits.timeout_s, engine, inputs, outputs)
        except ServingError as error:
            raise ArtifactRefused(f"{path} cannot be warmed up with {warm_up.told()}: {error}") from error


def zeros(spec: TensorSpec, shape: Sequence[int] | None = None) -> Array:
    """A tensor of nothing, with one element where any number may be."""
    shape = tuple(1 if size == -1 else size for size in spec.shape) if shape is None else tuple(shape)
    if spec.datatype != "BYTES":
        return np.zeros(shape, DTYPES[spec.datatype])
    array = np.empty(shape, np.object_)
    array.fill(b"")
    return array


def _calls(engine: Engine, path: Path, warm_up: WarmUp) -> Iterator[Call]:
    signature = engine.signature
    outputs = [spec.name for spec in signature.outputs]
    if warm_up.file is not None:
        request = v2.decode(_read(path.parent, warm_up.file), None)
        wanted = signature.wanted(path.name, [wanted.name for wanted in request.outputs])
        yield signature.bind(path.name, request.inputs), [spec.name for spec in wanted]
    elif warm_up.shapes is not None:
        given = [spec for spec in signature.inputs if spec.name not in warm_up.shapes]
        tensors = [Tensor(spec.name, spec.datatype, zeros(spec)) for spec in given]
        for name, shape in warm_up.shapes.items():
            spec = next((spec for spec in signature.inputs if spec.name == name), TensorSpec(name, "FP32", ()))
            tensors.append(Tensor(name, spec.datatype, zeros(spec, shape)))
        yield signature.bind(path.name, tensors), outputs
    else:
        for size in warm_up.batch_sizes:
            fixed = [spec.name for spec in signature.inputs if spec.shape[:1] != (-1,)]
            if fixed:
                raise InvalidInput(f"input '{fixed[0]}' has a fixed number of rows")
            tensors = [Tensor(s.name, s.datatype, zeros(s).repeat(size, axis=0)) for s in signature.inputs]
            yield signature.bind(path.name, tensors), outputs


def _read(folder: Path, name: str) -> bytes:
    file = folder / name
    try:
        found = file.lstat()
        if "/" in name or not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE_BYTES:
            raise InvalidInput(
                f"{file} is no file that can be taken; expected a regular one beside the model, "
                f"of at most {_MAX_FILE_BYTES} bytes"
            )
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read ({error.strerror})") from error


def _within(limit_s: float, engine: Engine, inputs: Mapping[str, Array], outputs: Sequence[str]) -> None:
    interrupt = Interrupt()
    timer = threading.Timer(limit_s, interrupt.fire)
    timer.start()
    try:
        engine.infer(inputs, outputs, interrupt)
    except ServingError as error:
        if interrupt.fired:
            raise InvalidInput(f"it did not answer within {limit_s:g} s (limits.timeout)") from error
        raise
    finally:
        timer.cancel()
