"""An ``.npz``: an array a tensor, first dimension the samples.

``x`` is the input of a model with one, otherwise each input has an array of its name; ``y`` are the labels, and any
other array says something of each sample that it can be sliced by. Members are read as they are unpacked, and no more
than a batch is there at a time, whatever sizes the file claims. Objects (pickles) are refused.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from serving.errors import ArtifactRefused
from serving.tensors import Array, Signature
from serving.variants.datasets import base
from serving.variants.datasets.base import Batch


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Npz:
    """One ``.npz`` file, as a dataset for models with one signature."""

    def __init__(self, path: Path, signature: Signature) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = {one.name: one for one in map(lambda n: self._head(archive, n), archive.namelist())}
        except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ArtifactRefused(f"{path} is no .npz of plain arrays ({error}); write it with numpy.savez") from error
        matched = base.inputs(path, list(members), signature)
        for name, spec in matched.items():
            base.fit(path, name, members[name].shape, members[name].dtype, spec)
        self._inputs = {name: spec.name for name, spec in matched.items()}
        lengths = {name: one.shape[0] for name, one in members.items() if one.shape}
        self.samples = lengths[next(iter(self._inputs))]
        """How many there are."""
        if other := next((name for name, length in lengths.items() if length != self.samples), None):
            raise ArtifactRefused(
                f"{path}: array {other} has {lengths[other]} samples and {next(iter(self._inputs))} has "
                f"{self.samples}; give both the same number"
            )
        if not self.samples:
            raise ArtifactRefused(f"{path} has no samples; give some")
        self._members = members
        self.facts = tuple(name for name, one in members.items() if name not in self._inputs and one.shape)
        """Names of the arrays that are no inputs."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most ``size`` at a time; fewer where they are large."""
        row = sum(one.row_bytes for one in self._members.values() if one.shape)
        size = max(1, min(size, base.MAX_BATCH_BYTES // max(1, row)))
        wanted = [*self._inputs, *self.facts]
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self._path))
            files = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in wanted}
            for name, file in files.items():
                _header(file, name)
            for first in range(0, self.samples, size):
                rows = min(size, self.samples - first)
                read = {name: self._rows(file, self._members[name], rows) for name, file in files.items()}
                inputs = {tensor: read[name] for name, tensor in self._inputs.items()}
                base.check_finite(self._path, inputs, first)
                yield Batch(inputs, {name: read[name] for name in self.facts}, first)

    def _head(self, archive: zipfile.ZipFile, name: str) -> _Member:
        with archive.open(name) as file:
            member = _header(file, name.removesuffix(".npy"))
        if member.row_bytes > base.MAX_BATCH_BYTES and member.shape:
            raise ValueError(f"one sample of {member.name} has {member.row_bytes >> 20} MiB; 256 are taken at most")
        return member

    def _rows(self, file: IO[bytes], member: _Member, rows: int) -> Array:
        wanted = rows * member.row_bytes
        content = file.read(wanted)
        if len(content) < wanted:
            raise ArtifactRefused(
                f"{self._path}: array {member.name} ends early: {len(content)} of {wanted} bytes; write the file again"
            )
        return np.frombuffer(content, member.dtype).reshape(rows, *member.shape[1:])


def _header(file: IO[bytes], name: str) -> _Member:
    """What an array says of itself; the file is then at its first row. ValueError where it is none to be read."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"array {name} holds Python objects, which are never loaded")
    if fortran and len(shape) > 1:
        raise ValueError(f"array {name} is in Fortran order; save numpy.ascontiguousarray of it")
    return _Member(name, tuple(shape), dtype)
