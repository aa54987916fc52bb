"""Artifacts that are at hand on the node: asked for before their source, offered after it.

The cache is believed in nothing: what it gives is held against the digest, like what comes from anywhere else. It
is never needed either: whatever is wrong with it is logged, and the source is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import logging
import re
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from serving.errors import ServingError

log = logging.getLogger(__name__)

_TIMEOUT_S = 3.0
"""For each step, not for all of it: a node's cache is at hand or of no use."""
_CHUNK = 1 << 20
_MAX_LISTING_BYTES = 16 << 20
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


class _Unusable(Exception):
    """What the cache gave is not what was asked for."""


@dataclasses.dataclass(frozen=True)
class Cache:
    """The cache at ``url``."""

    url: str

    def get(self, digest: str, folder: Path, name: Callable[[], str]) -> dict[str, str] | None:
        """Copies what has this digest into the empty ``folder``: the files of a folder, or one file called ``name()``.

        SHA-256 by path, where one file has the path ""; None, and nothing in ``folder``, if it is not to be had.
        """
        whole = folder / ".object"
        try:
            with self._connected() as connection:
                if not _read(connection, digest.removeprefix("sha256:"), whole):
                    return None
                files = _listed(whole)
                if files is None:
                    whole.rename(folder / name())
                    return {"": digest.removeprefix("sha256:")}
                whole.unlink()
                for path, sha256 in files.items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    if not _read(connection, sha256, folder / path):
                        raise _Unusable(f"{path} is not there any more")
                return files
        except (OSError, http.client.HTTPException, ServingError, _Unusable) as error:
            log.warning("cache %s does not give %s: %s; asking the source", self.url, digest, error)
            _clear(folder)
            return None

    def offer(self, files: Mapping[str, Path], listing: str | None) -> None:
        """Hands over files by their SHA-256, and after them the ``listing`` that makes them a folder."""
        try:
            with self._connected() as connection:
                for sha256, path in files.items():
                    with path.open("rb") as file:
                        _ask(connection, "PUT", sha256, file, path.stat().st_size)
                if listing is not None:
                    body = listing.encode()
                    _ask(connection, "PUT", hashlib.sha256(body).hexdigest(), body, len(body))
        except (OSError, http.client.HTTPException) as error:
            log.warning("cache %s does not take it: %s", self.url, error)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        address = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        with contextlib.closing(connection):
            yield connection


def _ask(
    connection: http.client.HTTPConnection, method: str, sha256: str, body: IO[bytes] | bytes | None, size: int
) -> http.client.HTTPResponse:
    connection.request(method, f"/v1/sha256-{sha256}", body, {"Content-Length": str(size)})
    response = connection.getresponse()
    if response.status not in (200, 201, 404):
        raise http.client.HTTPException(f"HTTP {response.status}: {response.read(500).decode(errors='replace')}")
    if method == "PUT":
        response.read()
    return response


def _read(connection: http.client.HTTPConnection, sha256: str, path: Path) -> bool:
    """Copies one object; False where it is not there."""
    response = _ask(connection, "GET", sha256, None, 0)
    if response.status == 404:
        response.read()
        return False
    digest = hashlib.sha256()
    with path.open("xb") as writer:
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != sha256:
        raise _Unusable(f"it gives something with the digest sha256:{digest.hexdigest()}")
    return True


def _listed(path: Path) -> dict[str, str] | None:
    """SHA-256 by path, if the file is what a folder's digest is the digest of."""
    if path.stat().st_size > _MAX_LISTING_BYTES:
        return None
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    lines = text.splitlines(keepends=True)
    found = [_LINE.fullmatch(line) for line in lines]
    files = {match[2]: match[1] for match in found if match}
    plain = all(PurePosixPath(p).as_posix() == p and ".." not in p.split("/") and p[0] != "/" for p in files)
    return files if files and len(files) == len(lines) and plain else None


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
