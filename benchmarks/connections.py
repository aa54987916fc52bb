"""Keep-alive connections that carry prepared bytes: a request costs its client some 30 µs, so that one processor can
offer a server many times what it can take. ``httpx`` needs ten times that.
"""

from __future__ import annotations

import asyncio
import collections
from typing import cast

import httptools

from benchmarks.dialects import Request


def prepared(request: Request, port: int) -> bytes:
    """``request`` as HTTP/1.1."""
    headers = {"Host": f"127.0.0.1:{port}", **request.headers, "Content-Length": str(len(request.body))}
    lines = [f"POST {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode() + request.body


class Connections:
    """Connections to one port, made when needed, each with one request at a time; those above ``limit`` wait."""

    def __init__(self, port: int, limit: int) -> None:
        self._port = port
        self._free: collections.deque[_Connection] = collections.deque()
        self._places = asyncio.Semaphore(limit)

    async def send(self, request: bytes) -> str:
        """Sends ``request``; what went wrong, empty for a good answer: ``HTTP 503``, ``gRPC 14``, ``lost``."""
        async with self._places:
            try:
                connection = await self._idle()
            except OSError:
                return "refused"
            error = await connection.ask(request)
            if connection.open:
                self._free.append(connection)
            return error

    def close(self) -> None:
        """Ends those that are free."""
        while self._free:
            self._free.pop().end()

    async def _idle(self) -> _Connection:
        while self._free:
            # The one used last: those that a burst has opened are left to the server's idle limit.
            connection = self._free.pop()
            if connection.open:
                return connection
        made = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        return made[1]


class _Connection(asyncio.Protocol):
    """One connection. Names of the callbacks are httptools'."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[str] | None = None
        self._grpc_status = b""
        self.open = False

    async def ask(self, request: bytes) -> str:
        self._answer = asyncio.get_running_loop().create_future()
        self._grpc_status = b""
        self._transport.write(request)
        return await self._answer

    def end(self) -> None:
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.end()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"grpc-status":
            self._grpc_status = value

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.end()
        if status != 200:
            self._done(f"HTTP {status}")
        else:
            self._done(f"gRPC {self._grpc_status.decode()}" if self._grpc_status not in (b"", b"0") else "")

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._done("lost")

    def _done(self, error: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(error)
