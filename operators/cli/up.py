"""``penstock up``: the parts of local mode put together, and ended together.

Store, actuator, reconciler and the local API run in one event loop. A change of an object, or something the
actuator saw, puts keys in the queue; all else follows from there. What must outlive this process is in the data
directory, so a new ``up`` on it goes on where the last one stopped, however it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import errno
import logging
import logging.handlers
import os
import pathlib
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import uvicorn

from operators.actuators.process.actuator import ProcessActuator
from operators.api.base import APIObject
from operators.api.commands import COMMANDS
from operators.api.errors import OperatorError
from operators.api.kinds import parse
from operators.api.plan import Key
from operators.cli import datadir, local_api, logs, manifests, view
from operators.cli.manifests import Manifest
from operators.planning import runtimes
from operators.reconcile import Reconciler, affected
from operators.router import agent, daemon
from operators.router.configuration import Listen
from operators.runtime.backoff import Backoff
from operators.runtime.controller import Controller
from operators.runtime.queue import Queue
from operators.runtime.webhook import RETRY as WEBHOOK_RETRY
from operators.runtime.webhook import Receiver, Webhook, telling
from operators.store.sqlite import SqliteStore
from serving.contract import DRAIN_TIMEOUT_S

log = logging.getLogger(__name__)

WORKERS = 4
RETRY = (0.2, 15.0)
"""First and longest wait, in seconds, of an object that could not be brought in line."""
REDRAW_S = 1.0
END_TIMEOUT_S = 60
LOG_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Options:
    """Where ``penstock up`` keeps its state and serves."""

    folder: pathlib.Path
    host: str
    port: int
    grpc_port: int
    webhook: Receiver | None = None
    """Who is told of what is decided; None: nobody."""


def main(options: Options, files: Sequence[str]) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP; ``files`` are applied first.

    Raises:
        OperatorError: a file is bad, the data directory is in use, or a port is.
    """
    wanted = manifests.load(files, "default")
    with datadir.locked(options.folder), _logging(options.folder):
        asyncio.run(_Up(options, wanted).run())


class _Up:
    """One run of local mode."""

    def __init__(self, options: Options, wanted: Sequence[Manifest]) -> None:
        self._options = options
        self._wanted = wanted
        self._queue: Queue[Key] = Queue(Backoff(*RETRY, random.Random()))
        self._changes = view.Changes()
        self._changed: asyncio.Queue[Key] = asyncio.Queue()
        self._stale: set[Key] = set()
        """What was stored by an earlier run and not looked at by this one: its status is history."""
        self._store = SqliteStore.open(options.folder / "objects.db", _now, self._changed.put_nowait)

    async def run(self) -> None:
        """From the first object to the last child."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        # nohup has it ignored, and then it stays so.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, ended.set)
        options = self._options
        rest, grpc = f"http://{options.host}:{options.port}", f"{options.host}:{options.grpc_port}"
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._store.close)
            actuator = await stack.enter_async_context(self._actuator())
            api = await stack.enter_async_context(self._api(actuator))
            for manifest in self._wanted:
                await self._store.apply(parse(manifest.data), COMMANDS)
            stored = self._store.keys()
            known = {key for key in stored if key.kind in ("Model", "Endpoint")}
            for key in known:
                self._queue.add(key)
            actuator.settle(known)
            where = f"penstock serves REST at {rest}, gRPC at {grpc}; state in {options.folder}"
            shown = view.choose(where, view.command(sys.argv[0], options.folder, os.environ), _now)
            stack.callback(shown.close, "ending: model servers finish what they began; what was applied is kept")
            stack.callback(datadir.withdraw, options.folder)
            webhook = None
            if options.webhook:
                webhook = Webhook(options.webhook, Backoff(*WEBHOOK_RETRY, random.Random()), _now, shown.event)
            await stack.enter_async_context(telling(webhook))
            engines = runtimes.local(sys.executable)
            reconciler = Reconciler(self._store, actuator, _now, engines, webhook.tell if webhook else None)
            self._stale, looked = set(known), asyncio.Event()

            async def reconcile(key: Key) -> float | None:
                try:
                    return await reconciler.reconcile(key)
                finally:
                    self._stale.discard(key)
                    if not self._stale:
                        looked.set()
                    await self._tell(key, shown)

            async def announce() -> None:
                if self._stale:
                    await looked.wait()
                datadir.announce(options.folder, dataclasses.replace(api, rest=rest, grpc=grpc))

            controller = Controller(self._queue, reconcile, WORKERS, time.monotonic)
            async with asyncio.TaskGroup() as group:
                work = (controller.run(), announce(), self._spread(), self._redraw(shown))
                tasks = [group.create_task(one) for one in work]
                await ended.wait()
                for task in tasks:
                    task.cancel()

    @contextlib.asynccontextmanager
    async def _actuator(self) -> AsyncIterator[ProcessActuator]:
        options = self._options
        actuator = ProcessActuator(
            options.folder,
            Listen(options.host, options.port, options.grpc_port),
            python=sys.executable,
            haproxy=agent.haproxy(),
            environment=os.environ,
            notify=self._queue.add,
        )
        try:
            await actuator.start()
        except OperatorError as error:
            await actuator.stop()
            _explain_ports(options, error)
            raise
        try:
            yield actuator
        finally:
            await actuator.stop()

    async def _spread(self) -> None:
        """Have whatever a change concerns looked at."""
        while True:
            key = await self._changed.get()
            try:
                for other in await affected(key, self._store):
                    self._queue.add(other)
            except OperatorError as error:
                log.warning("changed key=%r error=%r", str(key), str(error))

    async def _tell(self, key: Key, shown: view.View) -> None:
        # What cannot be read was said already, by whoever tried to act on it.
        with contextlib.suppress(OperatorError):
            object_ = await self._store.get(key)
            if line := self._changes.line(key, None if object_ is None else object_.to_dict()):
                shown.event(line)

    async def _redraw(self, shown: view.View) -> None:
        while True:
            with contextlib.suppress(OperatorError):
                found = [o for kind in ("Model", "Endpoint") for o in await self._store.list(kind)]
                shown.state([self._current(object_) for object_ in found])
            await asyncio.sleep(REDRAW_S)

    def _current(self, object_: APIObject) -> dict[str, Any]:
        meta = object_.metadata
        known = Key(object_.kind, meta.namespace, meta.name) not in self._stale
        return object_.to_dict() | ({} if known else {"status": {}})

    @contextlib.asynccontextmanager
    async def _api(self, actuator: ProcessActuator) -> AsyncIterator[datadir.Running]:
        token = secrets.token_urlsafe(32)

        def read(key: Key, follow: bool) -> AsyncIterator[bytes]:
            return logs.stream(lambda: actuator.logs(key.namespace, key.name), follow)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            app = local_api.app(self._store, read, token)
            config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            yield datadir.Running(os.getpid(), f"http://127.0.0.1:{listener.getsockname()[1]}", token, "", "")
            server.should_exit = True
            await serving


def down(folder: pathlib.Path) -> str:
    """End a running ``penstock up`` on ``folder``, or what one that was killed left running; says what was ended.

    Raises:
        OperatorError: it does not end.
    """
    nothing = f"nothing was running on {folder}"
    if not folder.exists():
        return nothing
    if (running := datadir.running(folder)) is not None:
        os.kill(running.pid, signal.SIGTERM)
    deadline, pause = time.monotonic() + END_TIMEOUT_S, threading.Event()
    while True:
        try:
            with datadir.locked(folder):
                ended = asyncio.run(_end_left(folder))
            break
        except datadir.InUse as error:
            if time.monotonic() > deadline:
                raise OperatorError(f"{error}; it did not end within {END_TIMEOUT_S} s") from error
            pause.wait(0.1)
    if running is not None:
        return f"ended `penstock up` (process {running.pid}) and all it ran"
    return f"ended what an earlier `penstock up` left running (processes: {ended})" if ended else nothing


async def _end_left(folder: pathlib.Path) -> int:
    """The router first, so that nobody sends what a server can no longer answer; how many were ended."""
    records, ended = datadir.records(folder), 0
    router = [record for record in records if record.parent.name == "router"]
    for group in (router, [record for record in records if record not in router]):
        found = [left for record in group if (left := daemon.adopt(record)) is not None]
        await asyncio.gather(*(left.end(DRAIN_TIMEOUT_S) for left in found))
        ended += len(found)
    return ended


def _explain_ports(options: Options, error: OperatorError) -> None:
    for option, port in (("--port", options.port), ("--grpc-port", options.grpc_port)):
        try:
            socket.create_server((options.host, port)).close()
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise OperatorError(f"--host {options.host}: {problem.strerror}") from error
            message = f"port {port} of {options.host} is in use; choose another with {option}"
            raise OperatorError(message) from error


class _Server(uvicorn.Server):
    """Signals are for the whole of ``penstock up``, which ends this server in its turn."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _logging(folder: pathlib.Path) -> Iterator[None]:
    """What the parts say goes to a file: the terminal is for what people want to know."""
    handler = logging.handlers.RotatingFileHandler(folder / "up.log", maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
