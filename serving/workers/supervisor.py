"""Several worker processes behind the same ports, and the one that keeps them: ``penstock serve --workers N``.

The supervisor imports what a worker needs, forks the workers and serves nothing itself: code and modules stay shared,
and a worker that dies is replaced in the time it takes to load the models. Every worker has a listening socket of its
own on the HTTP port (``SO_REUSEPORT``: the kernel spreads connections evenly, which workers that accept from one
socket do not). The sockets belong to the supervisor, so what waits in the queue of a worker that died is not lost: a
sibling accepts from it until the replacement does.

The first worker starts alone and proves the models; its refusal is that of the server. What changes the models is
asked of one worker first and, once that has done it, of all others. Figures are asked of all and added up; those of a
worker that ended stay counted, as they were last seen.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from serving.engines import cpu
from serving.errors import ServingError
from serving.workers import figures
from serving.workers.link import Gone, Link, remade

_log = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long the figures of a worker are waited for; then those it gave last are taken."""
_BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Before a worker is replaced, by how often it ended soon after its start."""
_STEADY_S = 30.0
_LAST_S = 5.0

Body = Callable[["Place"], int]


@dataclasses.dataclass(frozen=True)
class Place:
    """What a worker is given by the supervisor."""

    slot: int
    link: socket.socket
    http: tuple[socket.socket, ...]
    """The HTTP sockets of all workers, by slot."""
    cpus: frozenset[int] | None
    """CPUs to stay on."""


@dataclasses.dataclass(eq=False)
class _Worker:
    slot: int
    pid: int
    link: Link
    sock: socket.socket
    begun: float
    ready: bool = False
    was_ready: bool = False
    refusal: ServingError | None = None
    figures: list[Any] = dataclasses.field(default_factory=list)


class Supervisor:
    """Keeps ``count`` workers; ``body`` is what a worker does with its place, and gives its exit code."""

    def __init__(self, body: Body, http: Sequence[socket.socket], pinned: bool) -> None:
        self._body = body
        self._http = tuple(http)
        count = len(http)
        self._cpus: Sequence[frozenset[int] | None] = cpu.split(count) if pinned else [None] * count
        self._workers: dict[int, _Worker] = {}
        self._gone: list[list[Any]] = []
        self._unloaded: set[str] = set()
        self._changing = asyncio.Lock()
        self._ending = asyncio.Event()
        self._failure: ServingError | None = None
        self._ready = [asyncio.Event() for _ in http]
        self._telling: set[asyncio.Task[None]] = set()

    async def run(self, ready: Callable[[], None], settle_s: float, drain_s: float) -> None:
        """Keeps the workers until told to end; ServingError when the models cannot be served."""
        gc.collect()
        gc.freeze()  # what is there now stays as it is, so that its pages stay shared
        self._listen_to_signals()
        keeping = [asyncio.ensure_future(self._keep(0))]
        if await self._first(self._ready[0]):
            keeping += [asyncio.ensure_future(self._keep(slot)) for slot in range(1, len(self._http))]
            if all([await self._first(event) for event in self._ready]):
                ready()
        await self._ending.wait()
        for worker in self._workers.values():
            self._tell(worker, "end")
        ended = asyncio.gather(*keeping)
        done, _ = await asyncio.wait([ended], timeout=settle_s)
        for sock in self._http:  # those of workers that are no more have nobody to close them
            _shut(sock)
        if not done:
            await asyncio.wait([ended], timeout=drain_s + _LAST_S)
        self._kill()
        await ended
        if self._failure is not None:
            raise self._failure

    async def _first(self, event: asyncio.Event) -> bool:
        """Whether the event comes before the end."""
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._ending.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return not self._ending.is_set()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def told() -> None:
            if self._ending.is_set():
                self._kill()
            self._ending.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)

    def _kill(self) -> None:
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGKILL)

    # One worker after the other in a slot

    async def _keep(self, slot: int) -> None:
        soon = 0
        while not self._ending.is_set():
            worker = self._fork(slot)
            await worker.link.run(worker.sock)
            _, status = os.waitpid(worker.pid, 0)
            del self._workers[slot]
            self._gone.append(figures.without_gauges(worker.figures))
            self._gone[:] = [figures.added(self._gone)]
            if self._ending.is_set():
                return
            code = os.waitstatus_to_exitcode(status)
            if not self._workers and not worker.was_ready:
                self._failure = worker.refusal or ServingError(f"a worker ended with {code} before it was ready")
                self._ending.set()
                return
            self._share_out()
            soon = 0 if time.monotonic() - worker.begun > _STEADY_S else min(soon + 1, len(_BACKOFF_S) - 1)
            _log.error("worker %d (process %d) ended with %d; another one takes its place", slot, worker.pid, code)
            if await self._ends_within(_BACKOFF_S[soon]):
                return

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait([asyncio.ensure_future(self._ending.wait())], timeout=seconds)
        return self._ending.is_set()

    def _fork(self, slot: int) -> _Worker:
        ours, theirs = socket.socketpair()
        signals = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)  # or a signal of the worker would be heard by the supervisor
                for number in signals:
                    signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
                for other in (ours, *(worker.sock for worker in self._workers.values())):
                    os.close(other.fileno())  # or it would look alive to a sibling when the supervisor is not
                asyncio._set_running_loop(None)
                code = self._body(Place(slot, theirs, self._http, self._cpus[slot]))
            except BaseException:
                _log.exception("worker %d failed", slot)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        theirs.close()
        worker = _Worker(slot, pid, Link({}), ours, time.monotonic())
        worker.link = Link(self._handlers(worker))
        self._workers[slot] = worker
        return worker

    def _handlers(self, worker: _Worker) -> dict[str, Any]:
        async def ready(is_ready: bool) -> None:
            worker.ready = is_ready
            worker.was_ready = worker.was_ready or is_ready
            if is_ready:
                self._ready[worker.slot].set()
            self._share_out()

        async def refused(kind: str, text: str) -> None:
            worker.refusal = remade(kind, text)

        async def change(verb: str, name: str) -> None:
            await self._change(worker, verb, name)

        async def unloaded() -> list[str]:
            return sorted(self._unloaded)

        return {
            "ready": ready,
            "refused": refused,
            "change": change,
            "figures": self._figures,
            "statistics": self._statistics,
            "unloaded": unloaded,
        }

    def _share_out(self) -> None:
        """Says who accepts from which sockets: each from its own, and in place of those that are not ready."""
        ready = [worker for _, worker in sorted(self._workers.items()) if worker.ready]
        orphans = [
            slot
            for slot in range(len(self._http))
            if self._ready[slot].is_set() and slot not in {w.slot for w in ready}
        ]
        for position, worker in enumerate(ready):
            slots = [worker.slot, *orphans[position :: len(ready)]]
            self._tell(worker, "accept", slots=slots)

    def _tell(self, worker: _Worker, verb: str, **arguments: Any) -> None:
        async def tell() -> None:
            try:
                await worker.link.call(verb, **arguments)
            except ServingError as error:
                _log.warning("worker %d was told '%s': %s", worker.slot, verb, error)

        telling = asyncio.ensure_future(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    # What concerns all

    async def _change(self, first: _Worker, verb: str, name: str) -> None:
        async with self._changing:
            await first.link.call(verb, name=name)
            (self._unloaded.add if verb == "unload" else self._unloaded.discard)(name)
            others = [worker for worker in self._workers.values() if worker is not first]
            done = await asyncio.gather(*(w.link.call(verb, name=name) for w in others), return_exceptions=True)
        for worker, result in zip(others, done, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Gone):
                raise ServingError(f"worker {worker.slot} did not {verb} model '{name}' as the others did: {result}")

    async def _figures(self) -> list[Any]:
        workers = [worker for worker in self._workers.values() if worker.was_ready]
        await asyncio.gather(*(self._renew(worker) for worker in workers))
        return figures.added([*self._gone, *(worker.figures for worker in workers)])

    async def _statistics(self, name: str, version: str) -> list[list[Any]]:
        """Of those workers that can say it now."""
        asked = [worker for worker in self._workers.values() if worker.was_ready]
        calls = (asyncio.wait_for(w.link.call("statistics", name=name, version=version), ANSWER_S) for w in asked)
        found = await asyncio.gather(*calls, return_exceptions=True)
        for worker, result in zip(asked, found, strict=True):
            if isinstance(result, BaseException):
                _log.warning("worker %d gave no statistics: %s", worker.slot, result)
        return [result for result in found if not isinstance(result, BaseException)]

    async def _renew(self, worker: _Worker) -> None:
        try:
            worker.figures = await asyncio.wait_for(worker.link.call("figures"), ANSWER_S)
        except (TimeoutError, ServingError) as error:
            _log.warning("worker %d gave no figures (%s); those it gave last are shown", worker.slot, error)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        _log.debug("a socket that nobody listens on needs no shutting: %s", error)
