"""What a dataset is, and the one rule for what fits a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from serving.errors import ArtifactRefused
from serving.tensors import DTYPES, Array, Signature, TensorSpec

LABELS = "y"
MAX_BATCH_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some samples in order. ``inputs`` by the model's names; ``facts`` are the other arrays, ``y`` among them."""

    inputs: Mapping[str, Array]
    facts: Mapping[str, Array]
    first: int
    """Position of the first sample in the dataset."""


class Dataset(Protocol):
    """Samples for models with one signature. Whatever cannot be read or does not fit raises ArtifactRefused."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the arrays that are no inputs."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most ``size`` at a time; fewer where they are large."""


def inputs(path: Path, arrays: Sequence[str], signature: Signature) -> dict[str, TensorSpec]:
    """Array → input of the model that it is: the one of its name, or ``x`` for the only one."""
    specs = {spec.name: spec for spec in signature.inputs}
    found = {name: spec for name, spec in specs.items() if name in arrays}
    if not found and len(specs) == 1 and "x" in arrays:
        found = {"x": signature.inputs[0]}
    if len(found) < len(specs):
        have = ", ".join(sorted(arrays)) or "none"
        need = f"arrays {', '.join(specs)}" if len(specs) > 1 else "array " + " or ".join(dict.fromkeys((*specs, "x")))
        raise ArtifactRefused(f"{path}: the model needs the {need}; there are {have}: rename what holds the samples")
    return found


def fit(path: Path, array: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], spec: TensorSpec) -> None:
    """ArtifactRefused where an array of this shape, samples first, is not what the input takes."""
    if len(shape) != len(spec.shape) or any(
        want not in (-1, have) for want, have in zip(spec.shape[1:], shape[1:], strict=True)
    ):
        raise ArtifactRefused(
            f"{path}: array {array} has shape {list(shape)}, and input {spec.name} of the model "
            f"takes [{', '.join(str(one) if one >= 0 else 'any' for one in spec.shape)}]; give samples as it takes them"
        )
    wanted = DTYPES[spec.datatype]
    if dtype != wanted:
        raise ArtifactRefused(
            f"{path}: array {array} is {dtype}, and input {spec.name} of the model takes {wanted}; "
            f"convert it with .astype('{wanted}')"
        )


def check_finite(path: Path, inputs: Mapping[str, Array], first: int) -> None:
    """ArtifactRefused with the first sample that holds no number."""
    for name, array in inputs.items():
        if array.dtype.kind != "f":
            continue
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise ArtifactRefused(
                f"{path}: sample {first + int(bad.argmax())} of input {name} holds NaN or an infinity; "
                "remove it, or put a number there"
            )
