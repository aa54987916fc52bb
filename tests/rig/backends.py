"""Servers that stand in for model servers behind a real HAProxy, and tables that lead to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

from operators.api.plan import Arm, Counts, Route
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from operators.router.table import Server, Table, successor

DEADLINE_S = 30.0
STOP_TIMEOUT_S = 2.0


class Backend:
    """A server that says its name, and may be told to hold its answers or to die of a request."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = asyncio.Event()
        self.go.set()
        self.port = 0
        self.killed_by = b"nothing does"
        self.last_words = b""
        self.headers = b""
        self.status = b"200 OK"
        self.asked = 0
        self.request = b""

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port, self.port, True)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                request = head + await reader.readexactly(int(length[1]) if length else 0)
                self.asked, self.request = self.asked + 1, request
                await self.go.wait()
                if self.killed_by in request:
                    writer.write(self.last_words)
                    return
                body = self.name.encode()
                head = b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n" % (self.status, self.headers, len(body))
                writer.write(head + body)
                await writer.drain()


@contextlib.asynccontextmanager
async def backend(name: str) -> AsyncIterator[Backend]:
    found = Backend(name)
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        found.go.set()
        server.close()


def router(folder: Path, listen: Listen) -> Router:
    return Router(folder, listen, haproxy(), os.environ, lambda: None)


def table(before: Table, *backends: Backend, also: tuple[Route, ...] = (), message: str = "") -> Table:
    """Model ``digits`` with the last of ``backends`` as its only arm, or with none."""
    arms = tuple(Arm(f"digits-{b.name}", b.name, "fp32", 10_000) for b in backends[-1:])
    servers = {f"default/digits-{b.name}": (b.server,) for b in backends}
    return successor(before, [Route("default", "digits", arms, message), *also], servers, None)


def url(listen: Listen, path: str = "/v2/models/digits/infer") -> str:
    return f"http://127.0.0.1:{listen.http_port}{path}"


def reloads(started: Router) -> int:
    return (started.folder / "haproxy.log").read_text().count("Reloading HAProxy")


def counted(started: Router) -> dict[str, Counts]:
    """What the only process of HAProxy has counted of Model ``digits``."""
    seen = started.observe("default", "digits")
    assert seen is not None
    assert seen.counts.keys() == seen.read_s.keys()
    [counts] = seen.counts.values()
    return dict(counts)
