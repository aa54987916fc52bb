"""Samples to calibrate and evaluate with, read a batch at a time: a dataset may be larger than memory, or hostile.

``base`` says what a dataset is, and what fits a model. Four kinds are read: ``npz``; ``columns``, which is Parquet and
Arrow; ``parts``, a folder of such files; and ``pictures``, a folder of images with a ``labels.csv``. Each module says
what it expects. Whatever a file claims, no more than a batch of it is there at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import ArtifactRefused
from serving.tensors import Signature
from serving.variants.datasets.base import LABELS, Batch, Dataset
from serving.variants.datasets.npz import Npz

__all__ = ["LABELS", "Batch", "Dataset", "Npz", "opened"]

_KINDS = ".npz, Parquet, Arrow, a folder of these two, and a folder of images with a labels.csv are read"


def is_folder(path: Path) -> bool:
    """Whether the folder as a whole is a dataset, and not a file in it."""
    return (path / "labels.csv").is_file() or bool(_parts(path))


def _parts(path: Path) -> list[Path]:
    from serving.variants.datasets import parts

    return parts.files(path)


def opened(path: Path, signature: Signature, contract: Mapping[str, Any]) -> Dataset:
    """The dataset in a file or folder, for models with this signature; its kind is told by its first bytes.

    ``contract`` is the Model's, by which an image becomes a tensor.
    """
    if path.is_dir() and _parts(path):
        from serving.variants.datasets.parts import Parts

        return Parts(path, signature)
    if path.is_dir():
        from serving.variants.datasets.pictures import Pictures

        return Pictures(path, signature, contract)
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"PK":
        return Npz(path, signature)
    if magic[:4] in (b"PAR1", b"\xff\xff\xff\xff") or magic == b"ARROW1":
        from serving.variants.datasets.columns import Columns

        return Columns(path, signature)
    raise ArtifactRefused(f"{path} is no dataset: {_KINDS}")
