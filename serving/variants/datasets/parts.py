"""A folder of Parquet and Arrow files with the same columns: the rows of one after those of another, by file name.

It is what Spark and others write, so names that begin with ``_`` or ``.`` are passed over, as they do. One file is open
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from serving.errors import ArtifactRefused
from serving.tensors import Signature
from serving.variants.datasets.base import Batch
from serving.variants.datasets.columns import Columns

SUFFIXES = (".parquet", ".arrow")


def files(folder: Path) -> list[Path]:
    """Those of a folder of parts; empty where it is none, because something else is in it."""
    found = sorted(path for path in folder.rglob("*") if not path.is_dir())
    said = [path for path in found if not any(name[0] in "_." for name in path.relative_to(folder).parts)]
    return said if all(path.suffix in SUFFIXES for path in said) else []


class Parts:
    """One folder, as a dataset for models with one signature."""

    def __init__(self, folder: Path, signature: Signature) -> None:
        paths = files(folder)
        if linked := [path for path in paths if path.is_symlink()]:
            raise ArtifactRefused(f"{linked[0]} is a link; put the file there")
        self._parts = [Columns(path, signature) for path in paths]
        self.samples = sum(part.samples for part in self._parts)
        """How many rows there are in all."""
        self.facts = self._parts[0].facts
        """Names of the columns that are no inputs."""
        for path, part in zip(paths, self._parts, strict=True):
            if set(part.facts) != set(self.facts):
                raise ArtifactRefused(
                    f"{path} has the columns {', '.join(part.facts) or 'none'} beside the inputs, and {paths[0]} has "
                    f"{', '.join(self.facts) or 'none'}; give all files the same"
                )

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, at most ``size`` at a time; fewer at the end of a file, or where they are large."""
        first = 0
        for part in self._parts:
            for batch in part.batches(size):
                yield Batch(batch.inputs, batch.facts, first + batch.first)
            first += part.samples
