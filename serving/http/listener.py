"""The HTTP port of a server process: listening, the clockwork of its connections, and its end."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Mapping
from email.utils import formatdate

import uvicorn
from uvicorn.server import ServerState

from serving.errors import PortInUse
from serving.http.application import LazyApplication
from serving.http.plane import DataPlane
from serving.http.protocol import InferenceProtocol

LINGER_S = 0.5
"""How long a silent connection stays open once the server ends: a client may be sending on it this very moment."""
_BACKLOG = 2048
_LOOK_S = 0.05


class HttpListener:
    """Accepts connections and answers on them with ``InferenceProtocol``."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._state = ServerState()
        self._servers: dict[int, asyncio.Server] = {}

    async def accept(self, sockets: Mapping[int, socket.socket]) -> None:
        """Accepts connections from these sockets, by any number, and from no others any more.

        From a socket that never listened they are refused, which callers may take for "try again".
        """
        if not self._servers:
            self._configure()
        for number in [number for number in self._servers if number not in sockets]:
            self._servers.pop(number).close()
        loop = asyncio.get_running_loop()
        for number, sock in sockets.items():
            if number not in self._servers:
                self._servers[number] = await loop.create_server(self._connection, sock=sock.dup(), backlog=_BACKLOG)

    def _configure(self) -> None:
        config = self._config = uvicorn.Config(
            LazyApplication(self._plane.service),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        self.every_second()

    def _connection(self) -> InferenceProtocol:
        return InferenceProtocol(self._config, self._state, self._plane, asyncio.get_running_loop())

    def every_second(self) -> None:
        """Renews the date that answers carry and applies the time limits of connections."""
        self._plane.refresh_date()
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        self._plane.sweep(asyncio.get_running_loop().time())

    async def drain(self, timeout_s: float) -> None:
        """Stops listening and waits until every connection has ended; cuts those off that last longer.

        A connection ends with the answer to its next request, or after ``LINGER_S`` of silence.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self.accept({})
        connections = self._plane.connections
        while connections and loop.time() < begun + timeout_s:
            for connection in list(connections):
                if connection.is_idle() and loop.time() - max(begun, connection.idle_since()) > LINGER_S:
                    connection.shutdown()
            await asyncio.sleep(_LOOK_S)
        for connection in list(connections):
            connection.abort()


def bound(host: str, port: int, shared: int = 0, protocol: str = "HTTP") -> list[socket.socket]:
    """A socket on the port, or on a free one for 0, that does not listen yet; PortInUse when it cannot be had.

    With ``shared``, so many sockets share the port (``SO_REUSEPORT``), and still no other server may have it.
    """
    sockets: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, address = addresses[0]
        if shared and port:
            with _reusable(family, kind, number) as alone:  # fails where a server of somebody else shares the port
                alone.bind(address)
        for _ in range(shared or 1):
            sock = _reusable(family, kind, number)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address[0], sockets[0].getsockname()[1] if sockets else port, *address[2:]))
            sockets.append(sock)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{protocol} port {port} on {host} is in use by another process; "
                f"stop that process or choose another port with --{protocol.lower()}-port"
            ) from error
        raise PortInUse(
            f"{protocol} port {port} on {host} cannot be listened on ({error.strerror or error}); "
            f"choose another with --host and --{protocol.lower()}-port"
        ) from error
    return sockets


def _reusable(family: int, kind: int, number: int) -> socket.socket:
    sock = socket.socket(family, kind, number)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
