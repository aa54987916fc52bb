"""One server process: ports, the event loop's clockwork, and an end that loses no request.

Told to end (SIGTERM or SIGINT), it

1. answers "not ready" at once and ``Connection: close`` to everything, so that callers go elsewhere;
2. keeps accepting for ``settle_s``, while endpoints still point here;
3. stops listening, answers what it has begun, and closes a connection after its next answer or after
   ``LINGER_S`` of silence (a client may be sending on it this very moment);
4. leaves after ``DRAIN_TIMEOUT_S`` at the latest. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.catalog import Catalog
from serving.contract import DRAIN_TIMEOUT_S, Exit
from serving.errors import PortInUse
from serving.http import protocol
from serving.http.application import LazyApplication
from serving.http.plane import DataPlane, Limits
from serving.metrics import Metrics
from serving.models import Models
from serving.repository import Repository
from serving.service import Service

_log = logging.getLogger(__name__)

TICK_S = 0.1
LINGER_S = 0.5
_BACKLOG = 2048


@dataclasses.dataclass(frozen=True)
class Listen:
    """Where a server listens and what it says about itself."""

    host: str
    http_port: int
    grpc_port: int | None
    limits: Limits
    settle_s: float
    identity: dict[str, str]
    """Headers of every answer: which revision and variant this is."""


@dataclasses.dataclass(frozen=True)
class Serving:
    """Which models a server has of its own."""

    paths: tuple[Path, ...]
    name: str | None
    max_pending: int
    inference_timeout_s: float


def serve(listen: Listen, serving: Serving) -> Exit:
    """Runs the model server until it is told to end; ServingError when it cannot serve."""

    async def main() -> None:
        metrics = Metrics()
        repository = Repository(serving.paths, serving.name, metrics, serving.max_pending, serving.inference_timeout_s)
        await _run(listen, repository, metrics, repository.start)

    return _on_uvloop(main)


def serve_catalog(listen: Listen, index: Path) -> Exit:
    """Runs a server that knows models by name only, until it is told to end."""

    async def main() -> None:
        await _run(listen, Catalog(index), Metrics(), None)

    return _on_uvloop(main)


def _on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> Exit:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return Exit.OK


async def _run(
    listen: Listen, models: Models, metrics: Metrics, start: Callable[[], Coroutine[Any, Any, None]] | None
) -> None:
    service = Service(models)
    plane = DataPlane(service, metrics, listen.limits, listen.identity)
    state = ServerState()
    ending = _signals()
    http = await _listen_http(listen, plane, state)
    grpc_server = None
    ports: dict[str, object] = {"http_port": http.sockets[0].getsockname()[1]}
    if listen.grpc_port is not None:
        from serving.grpc_server import GrpcServer

        grpc_server = GrpcServer(service, listen.limits.max_request_bytes, listen.identity)
        ports["grpc_port"] = grpc_server.bind(listen.host, listen.grpc_port)
        await grpc_server.start()
    sys.stdout.write(orjson.dumps({"listening": listen.host, **ports, "pid": os.getpid()}).decode() + "\n")
    sys.stdout.flush()
    ticking = asyncio.ensure_future(_tick(plane, state, models))
    starting = asyncio.ensure_future(start()) if start is not None else None
    waiting = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait([waiting] if starting is None else [waiting, starting], return_when=asyncio.FIRST_COMPLETED)
        if starting is not None and starting.done():
            starting.result()
            _log.info("serving %s", ", ".join(service.model_names()))
        await waiting
        service.draining = True
        _log.info("told to end: not ready any more, accepting for %g s", listen.settle_s)
        await asyncio.sleep(listen.settle_s)
    finally:
        waiting.cancel()
        if starting is not None:
            starting.cancel()
        service.draining = True
        http.close()
        await asyncio.gather(
            _drain(plane, asyncio.get_running_loop().time() + DRAIN_TIMEOUT_S),
            *([grpc_server.stop(DRAIN_TIMEOUT_S)] if grpc_server is not None else []),
        )
        ticking.cancel()


def _signals() -> asyncio.Event:
    """An event that the first signal sets; the second one ends the process."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if ending.is_set():
            os._exit(128 + number)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return ending


async def _listen_http(listen: Listen, plane: DataPlane, state: ServerState) -> asyncio.Server:
    config = uvicorn.Config(
        LazyApplication(plane.service),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    try:
        address = await asyncio.get_running_loop().getaddrinfo(
            listen.host, listen.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, number, _, where = address[0]
        sock = socket.socket(family, kind, number)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
    except OSError as error:
        why = "another process has it" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise PortInUse(
            f"HTTP port {listen.http_port} on {listen.host} cannot be listened on, {why}; "
            "stop that process or choose another port with --http-port"
        ) from error
    return await asyncio.get_running_loop().create_server(
        protocol.factory(config, state, plane), sock=sock, backlog=_BACKLOG
    )


async def _tick(plane: DataPlane, state: ServerState, models: Models) -> None:
    """Time limits of inferences ten times a second; those of connections, and the date, once."""
    loop = asyncio.get_running_loop()
    count = 0
    while True:
        models.tick(time.perf_counter())
        if count % 10 == 0:
            plane.refresh_date()
            state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            plane.sweep(loop.time())
        count += 1
        await asyncio.sleep(TICK_S)


async def _drain(plane: DataPlane, deadline: float) -> None:
    """Waits until every connection is closed, closing those that are silent; aborts the rest at the deadline."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while plane.connections and loop.time() < deadline:
        for connection in list(plane.connections):
            if connection.is_idle() and loop.time() - max(begun, connection.idle_since()) > LINGER_S:
                connection.shutdown()
        await asyncio.sleep(TICK_S / 2)
    for connection in list(plane.connections):
        connection.abort()
