"""What all passes share: ONNX files in and out, and the one way to say that a graph cannot be changed so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from serving.errors import ArtifactRefused
from serving.tensors import Array
from serving.variants.datasets import LABELS, Batch
from serving.variants.recipe import Lower

FILE = "model.onnx"
"""What a pass writes, unless it is for another engine."""
_LOWERED = {"openvino": "model.openvino.onnx", "litert": "model.tflite", "tensorrt": "model.tensorrt.onnx"}

Told = Callable[[float], None]
"""Hears the share done."""
Samples = Callable[[], Iterator[Batch]]
"""Batches of samples, from the beginning each time."""


class PassRefused(ArtifactRefused):
    """The pass cannot be done on this model or with this data: doing it again cannot help."""


class Pass(Protocol):
    """``model`` becomes ``folder/model.onnx``, or what ``file`` says.

    What it tells is kept with the artifact and shown in the report.
    """

    def __call__(
        self, model: Path, folder: Path, asked: Any, samples: Samples | None, told: Told, **files: Path
    ) -> dict[str, Any]:
        """``files`` are those that ``recipe.Pass.files`` names. Raises PassRefused."""


def file(asked: Any) -> str:
    """The name of what a pass that is told this writes; by its suffix the server knows the engine."""
    return _LOWERED[asked.target] if isinstance(asked, Lower) else FILE


def read(model: Path) -> onnx.ModelProto:
    """The model with its weights."""
    return onnx.load(model)


def write(model: onnx.ModelProto, target: Path) -> None:
    """As one file; weights beside it only where one file cannot hold them."""
    large = model.ByteSize() > 2**31 - 2**20
    onnx.save(model, target, save_as_external_data=large, location=f"{target.name}.data")


def joined(samples: Samples) -> tuple[Array, Array | None]:
    """All samples of a model with one input, and their labels where there are any."""
    batches = list(samples())
    if len(batches[0].inputs) != 1:
        raise PassRefused(f"training needs a model with one input, this one has {', '.join(batches[0].inputs)}")
    x = np.concatenate([next(iter(one.inputs.values())) for one in batches])
    if x.dtype != np.float32:
        raise PassRefused(f"training needs an input of 32-bit floats, this model takes {x.dtype}; leave it out")
    return x, np.concatenate([one.facts[LABELS] for one in batches]) if LABELS in batches[0].facts else None
