"""Looks at an ONNX file before ONNX Runtime does: is it whole, and which other files would it read?

ONNX Runtime refuses most references out of the model's folder but reads hard links, so an artifact
could show a client another tenant's file. The rule here is narrower than ONNX's: external data is a
regular file with one name (``st_nlink == 1``), reached through no link, inside the model's own folder.

The file is walked on the wire level, over a memory map: tensors of gigabytes are skipped, not read.
Every place where ONNX can hold a tensor is followed (``_MESSAGES``), and every external-data location
counts, also where the tensor does not say it is external: protobuf merges repeated fields, and the
walk must not see less than a parser would.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from serving.errors import ArtifactRefused

_MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
"""Submessages by field number, for every message through which a tensor can be reached."""

PRECISION = "penstock.precision"
"""Key of the metadata by which a file that is lowered to an engine says what it computes in."""
_METADATA = 14
_OP_TYPE = 4
_LOOPS = frozenset({b"Loop", b"Scan", b"BeamSearch", b"GreedySearch", b"Sampling", b"WhisperBeamSearch"})
_GROWERS = frozenset(
    {
        b"AffineGrid", b"BlackmanWindow", b"CenterCropPad", b"Col2Im", b"ConstantOfShape", b"DFT", b"Expand",
        b"HammingWindow", b"HannWindow", b"MaxUnpool", b"MelWeightMatrix", b"OneHot", b"Pad", b"Range", b"Resize",
        b"STFT", b"Tile", b"Upsample",
    }
)  # fmt: skip
_MAX_DEPTH = 100
_IN_MEMORY = "*/_ORT_MEM_ADDR_/*"


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an ONNX file holds, as far as safety is concerned."""

    locations: frozenset[str]
    """Names of external-data files, as the model writes them."""
    loops: bool
    """Whether it has an operator that repeats a part of the graph."""
    grows: bool
    """Whether it has one whose output is as large as a value says: a few bytes can ask for any amount of work."""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What it says of itself."""


def screen(path: Path) -> Findings:
    """What the file refers to; ArtifactRefused when it is not whole or refers to what it must not."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        locations: set[str] = set()
        walk = _Walk(data, locations)
        try:
            walk.message("ModelProto", 0, len(data), 0)
        except _Malformed as error:
            raise ArtifactRefused(
                f"{path} is no whole ONNX model ({error} at byte {error.at} of {len(data)}); fetch or export it again"
            ) from error
    if not walk.has_graph:
        raise ArtifactRefused(f"{path} is no ONNX model (it holds no graph); fetch or export it again")
    for location in sorted(locations):
        _check(path, location)
    return Findings(frozenset(locations), walk.loops, walk.grows, walk.metadata)


class _Malformed(Exception):
    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


class _Walk:
    def __init__(self, data: mmap.mmap, locations: set[str]) -> None:
        self._data = data
        self._locations = locations
        self.loops = False
        self.grows = False
        self.has_graph = False
        self.metadata: dict[str, str] = {}

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise _Malformed(f"messages nested more than {_MAX_DEPTH} deep", start)
        inner = _MESSAGES[kind]
        for field, at, stop in self._fields(start, end):
            if kind == "NodeProto" and field == _OP_TYPE:
                self.loops = self.loops or self._data[at:stop] in _LOOPS
                self.grows = self.grows or self._data[at:stop] in _GROWERS
            if kind == "ModelProto" and field == _METADATA:
                key, value = self._pair(at, stop)
                self.metadata[key.decode(errors="replace")] = value.decode(errors="replace")
            sub = inner.get(field)
            if sub == "StringStringEntryProto":
                self._entry(at, stop)
            elif sub is not None:
                self.has_graph = self.has_graph or sub == "GraphProto"
                self.message(sub, at, stop, depth + 1)

    def _pair(self, start: int, end: int) -> tuple[bytes, bytes]:
        key = value = b""
        for field, at, stop in self._fields(start, end):
            if field == 1:
                key = self._data[at:stop]
            elif field == 2:
                value = self._data[at:stop]
        return key, value

    def _entry(self, start: int, end: int) -> None:
        key, value = self._pair(start, end)
        if key == b"location":
            try:
                self._locations.add(value.decode())
            except UnicodeDecodeError as error:
                raise _Malformed("an external-data location that is no UTF-8 text", start) from error

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, end) of each length-delimited field; the others are stepped over."""
        while at < end:
            begin = at
            tag, at = self._varint(at, end)
            wire = tag & 7
            if wire == 0:
                _, at = self._varint(at, end)
            elif wire == 1:
                at += 8
            elif wire == 5:
                at += 4
            elif wire == 2:
                length, at = self._varint(at, end)
                if at + length > end:
                    raise _Malformed("it is cut off: a field goes on beyond its end", begin)
                yield tag >> 3, at, at + length
                at += length
            else:
                raise _Malformed(f"a field of unknown wire type {wire}", begin)
            if at > end:
                raise _Malformed("it is cut off: a field goes on beyond its end", begin)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        result = shift = 0
        begin = at
        while at < end and shift < 70:
            byte = self._data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result, at
            shift += 7
        raise _Malformed("a number that does not end", begin)


def _check(model: Path, location: str) -> None:
    """ArtifactRefused unless ``location`` is a plain file of this model alone."""

    def refuse(what: str) -> ArtifactRefused:
        return ArtifactRefused(
            f"{model} keeps tensors in '{location}', {what}; save the model with its external data "
            "as plain files beside it"
        )

    if location.startswith(_IN_MEMORY):
        raise refuse("which is an address in memory")
    parts = Path(location).parts
    if not parts or "\0" in location:
        raise refuse("which is no file name")
    if Path(location).is_absolute() or ".." in parts:
        raise refuse("which is outside the model's folder")
    at = model.parent
    for position, part in enumerate(parts):
        at = at / part
        try:
            found = os.lstat(at)
        except OSError as error:
            raise refuse(f"which cannot be read ({error.strerror})") from error
        last = position == len(parts) - 1
        if stat.S_ISLNK(found.st_mode):
            raise refuse("which is a symbolic link")
        if not (stat.S_ISREG(found.st_mode) if last else stat.S_ISDIR(found.st_mode)):
            raise refuse("which is no regular file")
        if last and found.st_nlink != 1:
            raise refuse(f"which is a hard link (the file has {found.st_nlink} names)")
