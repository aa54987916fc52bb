"""A node's store of artifacts that were fetched before: content by its digest, over HTTP, in a folder of bounded size.

``GET`` and ``HEAD /v1/sha256-HEX`` give what is there, ``PUT`` takes content that has that digest and no other. There
is no list and no deletion: the digest is what allows to read. A folder is an object too: the text of its files
that its digest is the digest of. What was used longest ago goes first when something new needs its place.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.contract import Exit

log = logging.getLogger(__name__)

_NAME = re.compile(r"sha256-[0-9a-f]{64}")
_PARTIAL = ".put-"
_CHUNK = 1 << 20
_SLOWEST_BYTES_PER_S = 1 << 20
"""A writer below this holds its place for nothing."""
_PATIENCE_S = 30.0
_MAX_CONNECTIONS = 128


class Full(Exception):
    """There is no place for an object, even with everything else gone."""


@dataclasses.dataclass
class Objects:
    """The files of a folder, never more than ``max_bytes`` of them, those under way included."""

    folder: Path
    max_bytes: int
    _sizes: collections.OrderedDict[str, int] = dataclasses.field(default_factory=collections.OrderedDict)
    """By name, longest unused first."""
    _reserved: int = 0

    @classmethod
    def open(cls, folder: Path, max_bytes: int) -> Objects:
        """Go on with what an earlier process left; raises OSError where the folder cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_PARTIAL}*"):
            left.unlink()
        found = sorted(
            (path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=lambda p: p.stat().st_mtime
        )
        made = cls(folder, max_bytes, collections.OrderedDict((p.name, p.stat().st_size) for p in found))
        made._make_place(0)
        return made

    def read(self, name: str) -> IO[bytes] | None:
        """An object to read; it stays readable when it is evicted meanwhile."""
        if name not in self._sizes:
            return None
        try:
            file = (self.folder / name).open("rb")
        except FileNotFoundError:
            del self._sizes[name]
            return None
        self._sizes.move_to_end(name)
        os.utime(file.fileno())
        return file

    @contextlib.contextmanager
    def place(self, size: int) -> Iterator[IO[bytes]]:
        """A hidden file for something of ``size`` bytes, gone at the end unless it was kept.

        Raises:
            Full: that is more than there may be.
        """
        self._reserved += size
        try:
            self._make_place(size)
            with tempfile.NamedTemporaryFile(prefix=_PARTIAL, dir=self.folder, delete=False) as file:
                try:
                    yield file
                finally:
                    Path(file.name).unlink(missing_ok=True)
        finally:
            self._reserved -= size

    def keep(self, file: IO[bytes], name: str, size: int) -> None:
        """Give a complete file its name, in place of what had it."""
        os.replace(file.name, self.folder / name)
        self._sizes[name] = size
        self._sizes.move_to_end(name)

    def _make_place(self, size: int) -> None:
        if self._reserved > self.max_bytes:
            raise Full(f"{size} bytes do not fit into {self.max_bytes}, of which others are being written")
        while self._sizes and sum(self._sizes.values()) + self._reserved > self.max_bytes:
            name, bytes_ = self._sizes.popitem(last=False)
            (self.folder / name).unlink(missing_ok=True)
            log.info("evicted=%s bytes=%d", name, bytes_)


def application(objects: Objects) -> Starlette:
    """The HTTP side. Objects are changed on its event loop only, so there is nothing to lock."""

    def named(request: Request) -> str:
        name: str = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise HTTPException(404, f"{name} is no sha256-HEX")
        return name

    async def get(request: Request) -> Response:
        file = objects.read(named(request))
        if file is None:
            raise HTTPException(404, "not here")
        headers = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        if request.method == "HEAD":
            file.close()
            return Response(headers=headers)
        return StreamingResponse(_chunks(file), headers=headers, media_type="application/octet-stream")

    async def put(request: Request) -> Response:
        name, length = named(request), request.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise HTTPException(411, "say how many bytes there are in Content-Length")
        size = int(length)
        try:
            with objects.place(size) as file:
                async with asyncio.timeout(_PATIENCE_S + size / _SLOWEST_BYTES_PER_S):
                    found = await _received(request, file)
                if found != name:
                    raise HTTPException(422, f"the content is {found}, not {name}")
                objects.keep(file, name, size)
        except Full as error:
            raise HTTPException(507, str(error)) from error
        except TimeoutError as error:
            raise HTTPException(408, "the content came too slowly") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the content broke off") from error
        except OSError as error:
            log.warning("%s could not be kept: %s", name, error)
            raise HTTPException(507, f"the disk does not take it: {error.strerror}") from error
        return Response(status_code=201)

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [Route("/v1/{name}", get), Route("/v1/{name}", put, methods=["PUT"]), Route("/healthz", health)]
    return Starlette(routes=routes)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        async for chunk in iterate_in_threadpool(iter(lambda: file.read(_CHUNK), b"")):
            yield chunk


async def _received(request: Request, file: IO[bytes]) -> str:
    """Write the body; the name that its content has. The server has it that it is as long as it says."""
    digest = hashlib.sha256()
    async for chunk in request.stream():
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    return f"sha256-{digest.hexdigest()}"


def serve(folder: Path, max_bytes: int, host: str, port: int) -> Exit:
    """Answer until SIGTERM."""
    config = uvicorn.Config(
        application(Objects.open(folder, max_bytes)),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run()
    return Exit.OK
