"""Which engine loads which file, by the file's suffix. Engines are imported when first needed."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from types import ModuleType
from typing import cast

from serving.engines.base import Engine
from serving.errors import ArtifactRefused
from serving.settings import DEFAULT, Settings

SUFFIXES = {
    ".openvino.onnx": "serving.engines.openvino",
    ".tensorrt.onnx": "serving.engines.tensorrt",
    ".onnx": "serving.engines.onnxruntime",
    ".tflite": "serving.engines.litert",
    ".identity.json": "serving.engines.identity",
}
"""The first that fits counts. The extra that brings an engine's package is called as its module."""


def suffix(path: Path) -> str | None:
    """The suffix by which an engine knows the file; None when no engine does."""
    return next((known for known in SUFFIXES if path.name.endswith(known) and path.name != known), None)


def engine(path: Path) -> str:
    """The name of the engine that loads the file; empty when none does."""
    return SUFFIXES.get(suffix(path) or "", "").rpartition(".")[2]


def prepare(path: Path) -> None:
    """Imports what loads this file, so that the time and memory of that are nobody's."""
    known = suffix(path)
    if known is not None:
        _module(path, known)


def identity(path: Path) -> tuple[int, int, int]:
    """What changes when the file is replaced or written; ArtifactRefused when it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        raise ArtifactRefused(f"{path} cannot be read ({error.strerror}); check the path") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def load(path: Path, said: Settings = DEFAULT, shared: Path | None = None) -> Engine:
    """The engine with this file loaded; ArtifactRefused says what is wrong with it.

    ``shared`` is a folder for what processes that load the same file need not each have for themselves.
    """
    known = suffix(path)
    if known is None:
        raise ArtifactRefused(f"{path} is no artifact this server can load; expected {' or '.join(SUFFIXES)}")
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError as error:
        raise ArtifactRefused(f"{path} cannot be read ({error.strerror}); check the path") from error
    if not regular:
        raise ArtifactRefused(f"{path} is no regular file; give the model file itself")
    if real.stat().st_size == 0:
        raise ArtifactRefused(f"{path} is empty; fetch or export the model again")
    return cast(Engine, _module(path, known).load(real, said, shared))


def _module(path: Path, known: str) -> ModuleType:
    try:
        return importlib.import_module(SUFFIXES[known])
    except ModuleNotFoundError as error:
        extra = SUFFIXES[known].rpartition(".")[2]
        raise ArtifactRefused(
            f"{path} needs the package {error.name}, which is not installed here; install penstock[{extra}]"
        ) from error
