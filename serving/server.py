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
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from serving import settings, threads
from serving.contract import DRAIN_TIMEOUT_S, Exit
from serving.errors import EnginesHung, ServingError
from serving.http import listener
from serving.http.listener import HttpListener
from serving.http.plane import DataPlane, Limits
from serving.models.base import Models
from serving.models.budget import Budget
from serving.models.catalog import Catalog
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.scheduling.answers import Answers
from serving.service import Service
from serving.telemetry import telemetry
from serving.telemetry.metrics import Metrics
from serving.telemetry.observing import Observer
from serving.workers.roles import Alone, Member, Process, Role, say_ready

if TYPE_CHECKING:
    from serving.tap.tap import Tap

_log = logging.getLogger(__name__)

TICK_S = 0.1
HUNG_S = 10.0
"""How long a server whose every engine is stuck waits for one of them before it ends, so that it is replaced."""


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
    mirrors: bool = False
    """Whether the router is believed about whom copies of requests are for (``Env.ROUTED``)."""
    """Where copies of requests go; None: nowhere."""


@dataclasses.dataclass(frozen=True)
class Serving:
    """Which models a server has of its own."""

    paths: tuple[Path, ...]
    name: str | None
    settings: settings.Document
    """Said of all of them."""
    workers: int = 1
    """Processes that serve them behind the same ports."""
    pin: bool = False
    """Whether each worker keeps to CPUs of its own."""
    memory_budget_bytes: int | None = None
    """What all of them may take together, in all workers; None: all are loaded all the time."""
    answers_bytes: int = 64 * 2**20
    """Kept answers of the models that allow it, in all workers; 0: none."""


def serve(listen: Listen, serving: Serving) -> Exit:
    """Runs the model server until it is told to end; ServingError when it cannot serve."""
    if serving.workers > 1:
        return _serve_with_workers(listen, serving)
    return _on_uvloop(lambda: _serve(listen, serving, Alone(listen.host, listen.http_port)))


async def _serve(listen: Listen, serving: Serving, role: Role) -> None:
    metrics, admission = Metrics(), _admission(listen)
    budget = None if serving.memory_budget_bytes is None else Budget(serving.memory_budget_bytes // serving.workers)
    answers = Answers(serving.answers_bytes // serving.workers) if serving.answers_bytes else None
    repository = Repository(
        serving.paths,
        serving.name,
        metrics,
        serving.settings,
        admission,
        role.settings,
        budget,
        answers,
        role.shared,
    )
    try:
        await _run(listen, repository, metrics, admission, role)
    except ServingError as error:
        await role.failed(error)
        raise


def _serve_with_workers(listen: Listen, serving: Serving) -> Exit:
    """Takes the ports, then keeps the workers. What they need is imported here, once, and shared by forking."""
    import tempfile

    from serving.engines import onnxruntime
    from serving.grpc import server as grpc_server
    from serving.http import protocol
    from serving.workers import scratch, supervisor

    _log.debug("%s, %s and %s are shared", grpc_server.__name__, onnxruntime.__name__, protocol.__name__)
    http = listener.bound(listen.host, listen.http_port, shared=serving.workers)
    ports = {"http_port": http[0].getsockname()[1]}
    if listen.grpc_port is not None:
        reserved = listener.bound(listen.host, listen.grpc_port, shared=1, protocol="gRPC")
        ports["grpc_port"] = reserved[0].getsockname()[1]
    listen = dataclasses.replace(listen, **ports)

    def work(place: supervisor.Place) -> int:
        role = Member(place, shared)
        try:
            return _on_uvloop(lambda: _serve(listen, serving, role))
        except ServingError as error:
            return error.exit

    with scratch.folder(Path(tempfile.gettempdir())) as shared:
        asyncio.run(
            supervisor.Supervisor(work, http, serving.pin).run(
                lambda: say_ready(listen.host, ports), listen.settle_s, DRAIN_TIMEOUT_S
            )
        )
    return Exit.OK


def serve_catalog(listen: Listen, index: Path) -> Exit:
    """Runs a server that knows models by name only, until it is told to end."""

    async def main() -> None:
        await _run(listen, Catalog(index), Metrics(), _admission(listen), Alone(listen.host, listen.http_port))

    return _on_uvloop(main)


def _on_uvloop(main: Callable[[], Coroutine[Any, Any, None]]) -> Exit:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return Exit.OK


def _tap(listen: Listen) -> Tap | None:
    if not listen.mirrors:
        return None
    from serving.tap.tap import Tap

    return Tap()


def _admission(listen: Listen) -> Admission:
    return Admission(listen.limits.max_requests, listen.limits.max_held_bytes)


async def _run(listen: Listen, models: Models, metrics: Metrics, admission: Admission, role: Role) -> None:
    told_of_requests = telemetry.start(listen.telemetry, metrics)
    service = Service(models, Observer(told_of_requests))
    if models.computes:
        told_of_requests.show(service)
    plane = DataPlane(service, metrics, listen.limits, listen.identity, admission, _tap(listen))
    ending = asyncio.Event()
    http = HttpListener(plane)
    grpc_server = None
    ports = {"http_port": role.bind()}
    role.begin(Process(plane, models, http, ending))
    if listen.grpc_port is not None:
        from serving.grpc.server import GrpcServer

        grpc_server = GrpcServer(
            service, listen.limits.max_request_bytes, listen.identity, admission, role.shares_ports
        )
        ports["grpc_port"] = grpc_server.bind(listen.host, listen.grpc_port)
    _log.info("took ports %s; loading", ", ".join(str(port) for port in ports.values()))
    ticking = asyncio.ensure_future(_tick(http, models, told_of_requests))
    starting = asyncio.ensure_future(models.start())
    told = asyncio.ensure_future(ending.wait())
    try:
        done, _ = await asyncio.wait((told, starting, ticking), return_when=asyncio.FIRST_COMPLETED)
        if starting in done:
            starting.result()
            await role.listen()
            if grpc_server is not None:
                await grpc_server.start()
            await role.ready(ports)
            gc.freeze()  # what is loaded stays: no collection needs to walk it while requests wait
            _log.info("serving %s", ", ".join(service.model_names()) or "no model of its own")
            await asyncio.wait((told, ticking), return_when=asyncio.FIRST_COMPLETED)
        if ticking.done():
            ticking.result()
        service.draining = True
        await role.leaving()
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


async def _tick(http: HttpListener, models: Models, told_of_requests: telemetry.Telemetry) -> None:
    """Time limits of inferences ten times a second; those of connections, and the date, once."""
    count, answers = 0, time.monotonic()
    while True:
        models.tick(time.perf_counter())
        if not (hung := models.hung()):
            answers = time.monotonic()
        elif time.monotonic() - answers > HUNG_S:
            raise EnginesHung(f"nothing has been answered for {HUNG_S:g} s and this process cannot mend it: {hung}")
        if count % 10 == 0:
            http.every_second()
            told_of_requests.every_second()
        count += 1
        await asyncio.sleep(TICK_S)
