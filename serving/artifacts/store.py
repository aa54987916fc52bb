"""Files brought into an artifact store: whole, or not there.

What a store holds is named by its content (``contract.stored``), so a file that is there with its size is the same one
and is not sent again. An object of a bucket appears when its last byte has come; on a disk a file is renamed to its
place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from serving.errors import StorageUnavailable


def put(file: Path, uri: str) -> bool:
    """Have ``file`` at ``uri``; False if it was there. StorageUnavailable where that cannot be."""
    with _errors(uri):
        filesystem, place = fsspec.core.url_to_fs(uri)
        filesystem.invalidate_cache()
        if _size(filesystem, place) == file.stat().st_size:
            return False
        _send(filesystem, place, file)
        return True


def replace(file: Path, uri: str) -> None:
    """Have ``file`` at ``uri``, whatever was there. StorageUnavailable where that cannot be."""
    with _errors(uri):
        filesystem, place = fsspec.core.url_to_fs(uri)
        _send(filesystem, place, file)


def _send(filesystem: Any, place: str, file: Path) -> None:
    if "file" not in filesystem.protocol:
        filesystem.put_file(str(file), place)
        return
    filesystem.makedirs(os.path.dirname(place), exist_ok=True)
    growing = f"{place}.{secrets.token_hex(8)}"
    try:
        filesystem.put_file(str(file), growing)
        os.replace(growing, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(growing)


def _size(filesystem: Any, place: str) -> int | None:
    try:
        size: int = filesystem.info(place)["size"]
        return size
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StorageUnavailable(
            f"{uri} may not be written: {error}; give the builder keys that may, in a cluster by the Secret "
            "penstock-storage of the Model's namespace"
        ) from error
    except FileNotFoundError as error:
        raise StorageUnavailable(f"{uri} cannot be written: {error}; make the bucket, or name another store") from error
    except Exception as error:  # the clients behind fsspec raise errors of their own
        raise StorageUnavailable(
            f"{uri} could not be written: {type(error).__name__}: {error}; see store, network and credentials"
        ) from error
