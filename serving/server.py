"""One server process: ports, the event loop's clockwork, and an end that loses no request.

It takes its ports at once, so that a port in use is told before a model is loaded, and accepts connections once
every model was tried: a caller that meets a server which is starting again is refused and waits, instead of being
told that its model is unknown.

Told to end (SIGTERM or SIGINT), it

1. answers "not ready" at once and ``Connection: close`` to everything, so that callers go elsewhere;
2. keeps accepting for ``settle_s``, while endpoints still point here;
3. stops listening, answers what it has begun, and closes a connection after its next answer or after
   a moment of silence (a client may be sending on it this very moment);
4. leaves after ``DRAIN_TIMEOUT_S`` at the latest. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
import uvloop

from serving import settings, threads
from serving.catalog import Catalog
from serving.contract import DRAIN_TIMEOUT_S, Exit
from serving.http.listener import HttpListener
from serving.http.plane import DataPlane, Limits
from serving.metrics import Metrics
from serving.models import Models
from serving.observing import Observer
from serving.repository import Repository
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry import telemetry

_log = logging.getLogger(__name__)

TICK_S = 0.1


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
    telemetry: telemetry.Asked = dataclasses.field(default_factory=telemetry.Asked)


@dataclasses.dataclass(frozen=True)
class Serving:
    """Which models a server has of its own."""

    paths: tuple[Path, ...]
    name: str | None
    settings: settings.Document
    """Said of all of them."""


def serve(listen: Listen, serving: Serving) -> Exit:
    """Runs the model server until it is told to end; ServingError when it cannot serve."""

    async def main() -> None:
        metrics, admission = Metrics(), _admission(listen)
        repository = Repository(serving.paths, serving.name, metrics, serving.settings, admission)
        await _run(listen, repository, metrics, admission)

    return _on_uvloop(main)


def serve_catalog(listen: Listen, index: Path) -> Exit:
    """Runs a server that knows models by name only, until it is told to end."""

    async def main() -> None:
        await _run(listen, Catalog(index), Metrics(), _admission(listen))

    return _on_uvloop(main)


def _on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> Exit:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return Exit.OK


def _admission(listen: Listen) -> Admission:
    return Admission(listen.limits.max_requests, listen.limits.max_held_bytes)


async def _run(listen: Listen, models: Models, metrics: Metrics, admission: Admission) -> None:
    told_of_requests = telemetry.start(listen.telemetry, metrics)
    service = Service(models, Observer(told_of_requests))
    told_of_requests.show(service)
    plane = DataPlane(service, metrics, listen.limits, listen.identity, admission)
    ending = _signals()
    http = HttpListener(plane)
    grpc_server = None
    ports: dict[str, object] = {"http_port": await http.bind(listen.host, listen.http_port)}
    if listen.grpc_port is not None:
        from serving.grpc_server import GrpcServer

        grpc_server = GrpcServer(service, listen.limits.max_request_bytes, listen.identity, admission)
        ports["grpc_port"] = grpc_server.bind(listen.host, listen.grpc_port)
    _log.info("took ports %s; loading", ", ".join(str(port) for port in ports.values()))
    ticking = asyncio.ensure_future(_tick(http, models, told_of_requests))
    starting = asyncio.ensure_future(models.start())
    told = asyncio.ensure_future(ending.wait())
    try:
        done, _ = await asyncio.wait((told, starting, ticking), return_when=asyncio.FIRST_COMPLETED)
        if starting in done:
            starting.result()
            await http.listen()
            if grpc_server is not None:
                await grpc_server.start()
            sys.stdout.write(orjson.dumps({"listening": listen.host, **ports, "pid": os.getpid()}).decode() + "\n")
            sys.stdout.flush()
            gc.freeze()  # what is loaded stays: no collection needs to walk it while requests wait
            _log.info("serving %s", ", ".join(service.model_names()) or "no model of its own")
            await asyncio.wait((told, ticking), return_when=asyncio.FIRST_COMPLETED)
        if ticking.done():
            ticking.result()
        service.draining = True
        _log.info("told to end: not ready any more, accepting for %g s", listen.settle_s)
        await asyncio.sleep(listen.settle_s)
    finally:
        service.draining = True
        told.cancel()
        starting.cancel()
        ends = [http.drain(DRAIN_TIMEOUT_S)]
        if grpc_server is not None:
            ends.append(grpc_server.stop(DRAIN_TIMEOUT_S))
        await asyncio.gather(*ends)
        ticking.cancel()
        await threads.call(told_of_requests.close)


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


async def _tick(http: HttpListener, models: Models, told_of_requests: telemetry.Telemetry) -> None:
    """Time limits of inferences ten times a second; those of connections, and the date, once."""
    count = 0
    while True:
        models.tick(time.perf_counter())
        if count % 10 == 0:
            http.every_second()
            told_of_requests.every_second()
        count += 1
        await asyncio.sleep(TICK_S)
