"""The HTTP port of a server process: listening, the clockwork of its connections, and its end."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
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
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def bind(self, host: str, port: int) -> int:
        """Takes the port, or a free one for 0, and gives its number; PortInUse when it cannot be had."""
        self._socket = await _bound(host, port)
        return int(self._socket.getsockname()[1])

    async def listen(self) -> None:
        """Accepts connections on the port. Until then they are refused, which callers may take for "try again"."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            LazyApplication(self._plane.service),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
        )
        config.load()
        self.every_second()
        self._server = await loop.create_server(
            lambda: InferenceProtocol(config, self._state, self._plane, loop), sock=self._socket, backlog=_BACKLOG
        )

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
        if self._server is not None:
            self._server.close()
        connections = self._plane.connections
        while connections and loop.time() < begun + timeout_s:
            for connection in list(connections):
                if connection.is_idle() and loop.time() - max(begun, connection.idle_since()) > LINGER_S:
                    connection.shutdown()
            await asyncio.sleep(_LOOK_S)
        for connection in list(connections):
            connection.abort()


async def _bound(host: str, port: int) -> socket.socket:
    try:
        addresses = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, number, _, address = addresses[0]
        sock = socket.socket(family, kind, number)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"HTTP port {port} on {host} is in use by another process; "
                "stop that process or choose another port with --http-port"
            ) from error
        raise PortInUse(
            f"HTTP port {port} on {host} cannot be listened on ({error.strerror or error}); "
            "choose another with --host and --http-port"
        ) from error
    return sock
