"""One copy of a model's weights for all workers of a server.

ONNX Runtime packs weights into memory of its own, once in every process. Here the first process that loads a model
has it written once as ONNX Runtime would have it in memory, optimised and packed, with the weights in a file beside it
(``session.save_external_prepacked_constant_initializers``); every process then maps that file, so that the pages are
shared and belong to the page cache. Loading it skips the optimising too.

A copy is named by what the model's files contain, in a folder that only this server knows. Whoever uses one holds a
lock on it, and the last to let go removes it; a process that dies lets go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import onnxruntime

_log = logging.getLogger(__name__)

MIN_BYTES = 4 * 2**20
"""Smaller models are not worth a file."""
_MODEL = "model.onnx"
_WEIGHTS = "weights"
_NEW = ".new"
_MIN_INITIALIZER_BYTES = 1024


class Copy:
    """A prepared model, which stays as long as it is held."""

    def __init__(self, place: Path, lock: int) -> None:
        self._place = place
        self._lock = lock
        self.path = place / _MODEL

    def release(self) -> None:
        """Lets go of it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self._place)
        except BlockingIOError:
            pass  # others use it still
        finally:
            os.close(self._lock)


def held(
    model: Path, locations: Iterable[str], folder: Path, options: Callable[[], onnxruntime.SessionOptions]
) -> Copy | None:
    """The copy of a model, made unless it is there; None where the model is better loaded as it is.

    ``locations`` are its external-data files, ``options`` makes those of a session that loads it.
    """
    files = [model, *(model.parent / location for location in sorted(locations))]
    size = sum(file.stat().st_size for file in files)
    if size < MIN_BYTES:
        return None
    place = folder / _key(files)
    try:
        while True:
            place.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # its last user has removed it just now
                lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH)
                    if (place / _MODEL).exists() and _is(lock, place):
                        return Copy(place, os.dup(lock))
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    if not (place / _MODEL).exists() and _is(lock, place):
                        _prepare(model, place, options())
                finally:
                    os.close(lock)
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        _log.warning("%s is loaded by each worker for itself: no shared copy of it could be made (%s)", model, error)
        return None


def _is(lock: int, place: Path) -> bool:
    """Whether the locked folder is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(place))
    except FileNotFoundError:
        return False


def _key(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _prepare(model: Path, place: Path, options: onnxruntime.SessionOptions) -> None:
    options.optimized_model_filepath = str(place / _NEW)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": _WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_MIN_INITIALIZER_BYTES),
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (place / _NEW).rename(place / _MODEL)
