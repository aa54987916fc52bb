"""Sources that are no ONNX: which file is turned into one, by which toolchain, and which never is.

A module of this package turns one format into ONNX: ``convert(path, folder)`` writes ``folder/model.onnx`` and gives a
function that answers as the source does, so that the two can be ``compared``. It runs in a stage's process, in the
toolchain of the format.

No pickle is ever loaded, because loading one runs whatever code it holds.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from serving.engines import artifact
from serving.engines.base import Engine
from serving.errors import ArtifactRefused, ServingError
from serving.tensors import DTYPES, Array, Signature

MOST_APART = 1e-3
"""Greatest difference from the source's answers, relative to the largest of them."""
SAMPLES = 256
"""Compared at most."""

Answers = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""What the source gives for inputs, by the names of the ONNX model's outputs; those it has no word on are left out."""


class Source(Protocol):
    """A module that reads one format."""

    def convert(self, path: Path, folder: Path) -> Answers:
        """Writes ``folder/model.onnx``; ArtifactRefused where it cannot be."""


@dataclasses.dataclass(frozen=True)
class Format:
    """Of a file that becomes ONNX."""

    module: str
    toolchain: str


_FORMATS = {
    ".skops": Format("serving.variants.sources.scikit_learn", "sklearn"),
    ".pt2": Format("serving.variants.sources.torch_programs", "torch"),
}
_PICKLE = "is a pickle, and loading one runs any code it holds, so it never is; "
_REFUSED = {
    (".pkl", ".pickle", ".joblib"): f"{_PICKLE}save the model with skops.io.dump(model, 'model.skops')",
    (".pt", ".pth", ".ckpt"): f"{_PICKLE}save torch.export.export(model, inputs) with torch.export.save as "
    "model.pt2, or write ONNX with torch.onnx.export",
}


def format_of(path: Path) -> Format | None:
    """How this file becomes ONNX; None where it is left as it is. ArtifactRefused for formats that are never read."""
    for suffixes, why in _REFUSED.items():
        if path.suffix in suffixes:
            raise ArtifactRefused(f"{path.name} {why}")
    if path.suffix not in _FORMATS and artifact.suffix(path) is None:
        known = ", ".join(("*.onnx", *(f"*{suffix}" for suffix in _FORMATS)))
        raise ArtifactRefused(f"{path.name} is no model that is read here ({known}); export it as ONNX")
    return _FORMATS.get(path.suffix)


def convert(path: Path, folder: Path) -> Answers:
    """The source as ``folder/model.onnx``, and what it answers itself. ArtifactRefused where it cannot be."""
    form = format_of(path)
    assert form is not None
    source: Source = importlib.import_module(form.module)
    try:
        return source.convert(path, folder)
    except (ServingError, MemoryError, OSError):
        raise
    except Exception as error:
        # Of the libraries that read the format: they raise whatever comes to them.
        said = f"{type(error).__name__}: {str(error)[:300]}"
        raise ArtifactRefused(f"{path.name} cannot be turned into ONNX: {said}; export it yourself") from error


def compared(answers: Answers, engine: Engine, inputs: Mapping[str, Array]) -> float:
    """The greatest difference of the ONNX model's answers from the source's, relative to the largest of them.

    ArtifactRefused where it is beyond ``MOST_APART``.
    """
    wanted = answers(inputs)
    found = dict(zip(wanted, engine.infer(inputs, list(wanted)), strict=True))
    each = [0.0]
    for name, values in wanted.items():
        if values.size != found[name].size:
            raise ArtifactRefused(
                f"output {name} has shape {list(found[name].shape)} as ONNX and {list(values.shape)} at the source; "
                "export the model to ONNX yourself"
            )
        largest = max(float(np.abs(values).max()), 1e-6)
        each.append(float(np.abs(found[name].reshape(values.shape) - values).max()) / largest)
    apart = float(np.max(each))  # unlike max(), it lets no NaN pass
    if not apart <= MOST_APART:
        raise ArtifactRefused(
            f"as ONNX the model answers otherwise than the source: by {apart:.2g} of the largest answer, more than "
            f"{MOST_APART:g}; export the model to ONNX yourself, and look which of its steps needs 64 bits"
        )
    return apart


def noise(signature: Signature) -> dict[str, Array]:
    """Inputs for a model of which no samples are known: normal numbers, and 0 or 1 where they are whole."""
    random = np.random.default_rng(0)
    made = {}
    for spec in signature.inputs:
        shape = [SAMPLES if one == -1 and place == 0 else max(one, 1) for place, one in enumerate(spec.shape)]
        dtype = DTYPES[spec.datatype]
        values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        made[spec.name] = values.astype(dtype)
    return made
