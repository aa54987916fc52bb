"""The doing: calls of one engine, in the version's own thread or, for a quick model, on the event loop.

A call of several that fails, for whatever reason, is made again for each by itself: one request that the engine cannot
bear never fails its neighbours. What comes of a call is told on the event loop (``Told``), exactly once a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.engines.base import Engine, Interrupt
from serving.errors import EngineLost, InferenceFailed, ServingError
from serving.scheduling import batching
from serving.scheduling.job import Batch, Job
from serving.scheduling.line import Line
from serving.tensors import Array

Outcome = Sequence[Array] | ServingError

_RETURN_S = 10.0
"""How long those wait whose call lost its engine, before they are tried by themselves."""
_LOOK_S = 0.02
_SILENT_S = 1.0
"""After a line about an engine that failed."""

_log = logging.getLogger(__name__)


class Told(Protocol):
    """Who hears of calls, on the event loop."""

    def computed(self, batch: Batch, names: Sequence[str], outcome: Outcome) -> None:
        """A call has ended with the outputs of these names, or with an error for all who took part."""

    def fell_apart(self, batch: Batch, error: ServingError | None) -> None:
        """A call of several could not be used, and each of them is computed by itself. None: its outputs have
        another number of rows than its inputs.
        """

    def too_late(self, jobs: Sequence[Job]) -> None:
        """The time of these was over before their call began."""


class Worker:
    """Calls one engine for those who stand in line."""

    def __init__(
        self, name: str, engine: Engine, line: Line, told: Told, loop: asyncio.AbstractEventLoop, waits: bool
    ) -> None:
        """``waits``: the next call begins when the event loop has written the answers of the last one and looked once
        for requests. On a single CPU, which the two share, that loses no time and makes calls fuller.
        """
        self.running: Batch | None = None
        """What the thread has given the engine."""
        self._name = name
        self._engine = engine
        self._line = line
        self._told = told
        self._loop = loop
        self._silent_until = 0.0
        self._ending = threading.Event()
        self._waits = waits
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"infer-{name}", daemon=True).start()

    def compute_here(self, jobs: list[Job]) -> None:
        """Makes the call in the thread that asks, which is the event loop's."""
        self._compute(jobs, None, _at_once)

    def end(self) -> None:
        """Closes the engine when nobody stands in line any more."""
        self._ending.set()
        self._line.close()

    def said(self, error: Exception, stopped: bool = False) -> ServingError:
        """What a client is told of an engine's error, of which the log gets a line, too, unless it was ``stopped``.

        What an engine says by itself may be the fault of the request, so it is at most one line a second.
        """
        if isinstance(error, ServingError):
            now = time.monotonic()
            if type(error) is InferenceFailed and not stopped and now >= self._silent_until:
                self._silent_until = now + _SILENT_S
                _log.error("the engine of model %s failed: %s", self._name, error)
            return error
        _log.error("the engine of model %s failed", self._name, exc_info=error)
        return InferenceFailed(f"model '{self._name}' failed: {type(error).__name__}")

    def _work(self) -> None:
        while (jobs := self._line.take()) is not None:
            self._compute(jobs, Interrupt(), self._hand_over)
            del jobs  # their tensors must not live until somebody else comes
            if self._waits:
                self._hand_over(self._turn_begins)
                self._turn.get()
        self._engine.close()

    def _turn_begins(self) -> None:
        """On the event loop, when the answers have been written: it looks at the sockets before it comes to this."""
        self._loop.call_soon(self._turn.put, None)

    def _hand_over(self, told: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(functools.partial(told, *arguments))

    def _compute(self, jobs: list[Job], interrupt: Interrupt | None, tell: Callable[..., None]) -> None:
        now = time.perf_counter()
        waiting = [job for job in jobs if not job.answered]
        jobs = [job for job in waiting if now <= job.deadline]
        if len(jobs) < len(waiting):
            tell(self._told.too_late, [job for job in waiting if now > job.deadline])
        if not jobs:
            return
        batch = Batch(jobs, interrupt, now)
        names, outcome = self._called(batch)
        if len(jobs) == 1 or (not isinstance(outcome, ServingError) and batching.fits(batch.call.rows, outcome)):
            tell(self._told.computed, batch, names, outcome)
            return
        error = outcome if isinstance(outcome, ServingError) else None
        unanswered = [job for job in jobs if not job.answered]
        if not unanswered:  # it was stopped because of that
            tell(self._told.computed, batch, names, error or InferenceFailed("nobody waits for it"))
            return
        tell(self._told.fell_apart, batch, error)
        for job in unanswered:
            if isinstance(error, EngineLost):
                self._await_engine(job.deadline)
            self._compute([job], None if interrupt is None else Interrupt(), tell)

    def _called(self, batch: Batch) -> tuple[Sequence[str], Outcome]:
        names: Sequence[str] = ()
        call = batch.call
        for job in batch.jobs:
            job.call = call
        if batch.interrupt is not None:
            self.running = batch
        try:
            inputs, names = batching.joined(batch.jobs)
            return names, self._engine.infer(inputs, names, batch.interrupt)
        except Exception as error:
            return names, self.said(error, batch.stopped is not None)
        finally:
            call.ended = time.perf_counter()
            if batch.interrupt is not None:
                self.running = None

    def _await_engine(self, deadline: float) -> None:
        """Gives an engine that was lost the time to come back."""
        deadline = min(deadline, time.perf_counter() + _RETURN_S)
        while self._engine.problem and time.perf_counter() < deadline and not self._ending.wait(_LOOK_S):
            pass


def _at_once(told: Callable[..., None], *arguments: object) -> None:
    told(*arguments)
