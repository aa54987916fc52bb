"""A folder of images with a ``labels.csv``: a line a sample, ``file`` is the image, ``label`` what it is.

``label`` becomes ``y``: the position of the word in the Model's ``contract.output.labels`` where it is one of them,
else the number that it is. Any other column is there to slice by. An image becomes the tensor as ``penstock infer``
has it, by ``contract.input.image`` (``translation.pictures``).

An image is opened when its turn comes, and only if it is a plain file in the folder and has no more than 64 million
points: a small file may claim any number of them.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Array, Signature
from serving.translation import pictures
from serving.variants.datasets import base
from serving.variants.datasets.base import LABELS, Batch

TABLE = "labels.csv"
_LARGEST_TABLE_BYTES = 256 * 2**20


class Pictures:
    """One folder, as a dataset for models with one signature."""

    def __init__(self, path: Path, signature: Signature, contract: Mapping[str, Any]) -> None:
        self._path = Path(os.path.realpath(path))
        wanted = pictures.Wanted.of(contract)
        if wanted is None:
            raise ArtifactRefused(
                f"{path} is a folder of images, and the Model does not say how one becomes a tensor; "
                "set spec.contract.input.image"
            )
        if len(signature.inputs) != 1:
            names = ", ".join(spec.name for spec in signature.inputs)
            raise ArtifactRefused(f"{path} is a folder of images, and the model has the inputs {names}; give a .npz")
        self._wanted = wanted
        spec = signature.inputs[0]
        self._input = spec.name
        base.fit(path, "image", (1, *wanted.shape), np.dtype(np.float32), spec)
        words = (contract.get("output") or {}).get("labels") or ()
        self._words = {word: position for position, word in enumerate(words)}
        self.samples = 0
        """How many lines there are."""
        self._number: type[int] | type[float] = int
        columns: list[str] = []
        for line in self._lines():
            columns = list(line)
            self._file(line["file"])
            if "label" in line and line["label"] not in self._words:
                self._number = self._wider(line)
            self.samples += 1
        if not self.samples:
            raise ArtifactRefused(f"{self._path / TABLE} has no samples; give some")
        self.facts = tuple(LABELS if name == "label" else name for name in columns if name != "file")
        """``y``, and the names of the other columns."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All images in order, at most ``size`` at a time; fewer where they are large."""
        row = 12 * self._wanted.height * self._wanted.width
        size = max(1, min(size, base.MAX_BATCH_BYTES // row))
        lines = self._lines()
        for first in range(0, self.samples, size):
            read = list(itertools.islice(lines, size))
            tensors = np.stack([self._tensor(self._file(line["file"])) for line in read])
            facts = {name: self._fact(name, read) for name in self.facts}
            yield Batch({self._input: tensors}, facts, first)

    def _fact(self, name: str, lines: list[dict[str, str]]) -> Array:
        if name != LABELS:
            return np.array([line[name] for line in lines], np.str_)
        words, number = self._words, self._number
        return np.array([words[one] if one in words else number(one) for one in (line["label"] for line in lines)])

    def _wider(self, line: dict[str, str]) -> type[int] | type[float]:
        """The narrower of whole number and number that this label and those before it are."""
        for one in (int, float) if self._number is int else (float,):
            with contextlib.suppress(ValueError):
                one(line["label"])
                return one
        raise ArtifactRefused(
            f"{self._path / TABLE}: label {line['label']!r} of {line['file']} is no number and none of "
            "spec.contract.output.labels; write its position, or name it there"
        )

    def _lines(self) -> Iterator[dict[str, str]]:
        """The table's lines; each has every column."""
        table = self._path / TABLE
        try:
            if table.is_symlink() or os.stat(table).st_size > _LARGEST_TABLE_BYTES:
                raise ArtifactRefused(
                    f"{table} is a symbolic link, or larger than 256 MiB; put a smaller file in its place"
                )
            with table.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, restkey="", restval=None, strict=True)
                if "file" not in (reader.fieldnames or ()):
                    raise ArtifactRefused(f"{table} has no column file; its first line must name one, as in file,label")
                for line in reader:
                    if "" in line or None in line.values():
                        raise ArtifactRefused(f"{table}: line {reader.line_num} has not one value a column; mend it")
                    yield line
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ArtifactRefused(f"{table} cannot be read ({error}); give a table file,label in UTF-8") from error

    def _file(self, name: str) -> Path:
        """The image of this name; ArtifactRefused where it is no plain file in the folder."""
        path = self._path / name
        if os.path.realpath(path) != str(path) or self._path not in path.parents:
            raise ArtifactRefused(
                f"{self._path / TABLE}: {name} is outside of the folder, or a link; put the file there"
            )
        if not path.is_file():
            raise ArtifactRefused(f"{self._path / TABLE}: there is no file {name}; put it there, or remove the line")
        return path

    def _tensor(self, path: Path) -> Array:
        try:
            return pictures.opened(path, self._wanted)[0]
        except InvalidInput as error:
            raise ArtifactRefused(f"{path} {error}; write it again") from error
