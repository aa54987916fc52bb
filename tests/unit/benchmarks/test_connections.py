from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest

from benchmarks.connections import Connections, prepared
from benchmarks.dialects import Request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
TRAILERS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: %d\r\n\r\n"


class Server:
    """Says the next of ``answers`` to each request; None: ends the connection."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                assert length is not None
                await reader.readexactly(int(length[1]))
                answer = self.answers.pop(0)
                if answer is None:
                    return
                writer.write(answer)


@contextlib.asynccontextmanager
async def asked(server: Server, limit: int = 8) -> AsyncIterator[tuple[Connections, bytes]]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    connections = Connections(port, limit)
    async with asyncio.timeout(30), listener:
        yield connections, prepared(Request("/infer", {"A": "b"}, b"body"), port)
        connections.close()


async def test_one_connection_carries_one_request_after_the_other() -> None:
    server = Server(OK, OK, OK)
    async with asked(server) as (connections, request):
        assert [await connections.send(request) for _ in range(3)] == ["", "", ""]
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "HTTP 503"),
        (TRAILERS % 0, ""),
        (TRAILERS % 14, "gRPC 14"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ngrpc-status: 4\r\n\r\n", "gRPC 4"),
        (b"nonsense\r\n\r\n", "lost"),
        (None, "lost"),
    ],
)
async def test_what_went_wrong_is_told_and_the_next_request_is_answered(answer: bytes | None, error: str) -> None:
    async with asked(Server(answer, OK)) as (connections, request):
        assert [await connections.send(request), await connections.send(request)] == [error, ""]


async def test_a_connection_that_the_server_closes_with_its_answer_is_not_used_again() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", OK)
    async with asked(server) as (connections, request):
        assert [await connections.send(request), await connections.send(request)] == ["", ""]
        assert server.connections == 2


async def test_no_more_connections_are_made_than_allowed() -> None:
    server = Server(*[OK] * 10)
    async with asked(server, limit=2) as (connections, request):
        assert await asyncio.gather(*(connections.send(request) for _ in range(10))) == [""] * 10
        assert server.connections <= 2


async def test_a_port_that_nobody_listens_on_refuses() -> None:
    async with asked(Server()) as (connections, request):
        pass
    assert await connections.send(request) == "refused"
