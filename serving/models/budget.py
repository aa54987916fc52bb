"""Memory that the models of a server may take together: those asked longest ago make room, and come back when asked.

A model that was put away stays ready: a client that looks before it asks would otherwise never ask, and it would
never come back. Its queue takes requests as ever, bounded in number and time; the first of them loads it again, on
the queue's own thread, and is answered when it is there. ``Evictable`` stands where the queue expects an engine, so
nothing else knows of this.

What a model takes is measured at its first load: for a process of its own what is not shared of it (PSS), in the
server's process by how much its resident memory grew; never less than its file, never less than was measured before.
Other requests that are answered meanwhile blur the second, so leave some room between the budget and what there is.

Loading takes turns. A model that was loaded for a request stays at least four times as long as that took, so that
models which together are larger than the budget and are all asked all the time cost a fifth of the time at most; the
counters of loads and evictions show it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from serving.engines import artifact
from serving.engines.base import Engine, Interrupt, StreamingEngine
from serving.errors import ArtifactRefused, InferenceFailed, NotReady, ServingError
from serving.models.loading import Loaded
from serving.telemetry import process
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array

_log = logging.getLogger(__name__)

_STAY = 4.0
_LOOK_S = 0.05
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 2**20

Load = Callable[[], Loaded]


class Budget:
    """What all models together may take, and who takes it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        _keep_little()
        self._turn = threading.Lock()
        self._members: set[Evictable] = set()

    def admit(self, path: Path, load: Load, counters: ModelCounters, wait_s: float) -> Loaded:
        """What ``load`` gives, made evictable, once there is room; ArtifactRefused when there never can be."""
        with self.turn(None):
            loaded, size = measured(path, load)
            if isinstance(loaded.engine, StreamingEngine):
                return loaded
            try:
                if size > self.limit_bytes:
                    raise ArtifactRefused(
                        f"{path} takes {_told(size)} of memory, the budget of this server is "
                        f"{_told(self.limit_bytes)} (--memory-budget); raise it, or serve the model elsewhere"
                    )
                member = Evictable(path, loaded.engine, load, size, self, counters)
                until = time.monotonic() + wait_s
                self.make_room(size, member, lambda: time.monotonic() > until)
            except BaseException as error:
                loaded.engine.close()
                if isinstance(error, InferenceFailed):
                    raise NotReady(f"{path} found no room: every other model is being asked") from error
                raise
            self._members.add(member)
        return dataclasses.replace(loaded, engine=member, inline_elements=0)

    @contextlib.contextmanager
    def turn(self, interrupt: Interrupt | None) -> Iterator[None]:
        """One model at a time is loaded."""
        while not self._turn.acquire(timeout=_LOOK_S):
            if interrupt is not None and interrupt.fired:
                raise InferenceFailed("the request's time was over before the model could be loaded")
        try:
            yield
        finally:
            self._turn.release()

    def make_room(self, size: int, newcomer: Evictable, has_ended: Callable[[], bool]) -> None:
        """Puts away what was asked longest ago until ``size`` fits; waits for models that are busy."""
        pause = threading.Event()
        while self.used_bytes(newcomer) + size > self.limit_bytes:
            others = sorted(self._members - {newcomer}, key=lambda member: member.used)
            if any(member.put_away() for member in others):
                continue
            if has_ended():
                raise InferenceFailed("the request's time was over before there was room for the model")
            pause.wait(_LOOK_S)

    def used_bytes(self, but: Evictable | None = None) -> int:
        """What the models take that are loaded."""
        return sum(member.size for member in self._members.copy() if member is not but and member.is_loaded)

    def leave(self, member: Evictable) -> None:
        """The model is gone."""
        self._members.discard(member)


class Evictable:
    """An engine that can be put away between two calls and comes back with the next."""

    may_block = True
    """Even a call that needs no time may have to load."""

    def __init__(
        self, path: Path, engine: Engine, load: Load, size: int, budget: Budget, counters: ModelCounters
    ) -> None:
        self.platform = engine.platform
        self.signature = engine.signature
        self.may_loop = engine.may_loop
        self.size = size
        self.used = time.monotonic()
        self._path = path
        self._identity = artifact.identity(path)
        self._engine: Engine | None = engine
        self._load = load
        self._budget = budget
        self._counters = counters
        self._calling = threading.Lock()
        self._stays_until = 0.0
        self._problem = ""

    @property
    def is_loaded(self) -> bool:
        """Whether it takes memory now."""
        return self._engine is not None

    @property
    def problem(self) -> str:
        """The engine's own, or why it could not be loaded again."""
        engine = self._engine
        return self._problem if engine is None else engine.problem

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """What the engine answers, once it is there."""
        with self._calling:
            self.used = time.monotonic()
            engine = self._engine or self._again(interrupt)
            try:
                return engine.infer(inputs, outputs, interrupt)
            finally:
                self.used = time.monotonic()

    def put_away(self) -> bool:
        """Frees its memory, unless it is called at this moment or has come back only just now."""
        if time.monotonic() < self._stays_until or not self._calling.acquire(blocking=False):
            return False
        try:
            if self._engine is None:
                return False
            self._engine.close()
            self._engine = None
            self._counters.evictions += 1
            _give_back()
            return True
        finally:
            self._calling.release()

    def close(self) -> None:
        """Frees the engine for good."""
        self._budget.leave(self)
        with self._calling:
            if self._engine is not None:
                self._engine.close()
                self._engine = None

    def _again(self, interrupt: Interrupt | None) -> Engine:
        with self._budget.turn(interrupt):
            self._budget.make_room(self.size, self, lambda: interrupt is not None and interrupt.fired)
            begun = time.monotonic()
            try:
                if artifact.identity(self._path) != self._identity:
                    raise ArtifactRefused(f"{self._path} has changed since it was loaded; load the model again")
                loaded, size = measured(self._path, self._load)
            except ServingError as error:
                self._problem = f"it made room for others and cannot come back: {error}"
                _log.warning("%s: %s", self._path, self._problem)
                raise NotReady(f"the model cannot answer now: {self._problem}") from error
            self._engine = loaded.engine
            self.size = max(size, self.size)
            self._counters.loads += 1
            ended = time.monotonic()
            self._stays_until = ended + _STAY * (ended - begun)
            return loaded.engine


def measured(path: Path, load: Load) -> tuple[Loaded, int]:
    """What ``load`` gives, and how many bytes of memory it took."""
    *_, size = artifact.identity(path)
    artifact.prepare(path)  # the engine's library is nothing that this model takes
    _give_back()
    before = process.resident_bytes()
    loaded = load()
    _give_back()  # what the loading itself needed
    pid = getattr(loaded.engine, "pid", None)
    took = process.resident_bytes() - before if pid is None else process.proportional_bytes(pid)
    return loaded, max(int(took), size)


def _keep_little() -> None:
    """Has the C library take large pieces from the system one by one, for the life of this process.

    Else it learns from the first that is freed to keep the next: ten models of 24 MiB under a budget of four left
    97 MiB behind after 40 loads, and 590 MiB without ``_give_back``; with both, 1 MiB.
    """
    _of_the_c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE_BYTES)


def _give_back() -> None:
    """Has the C library return what was freed in small pieces, which it else keeps for more of them."""
    _of_the_c_library("malloc_trim", 0)


def _of_the_c_library(function: str, *arguments: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has neither, and keeps nothing
            getattr(ctypes.CDLL(None), function)(*arguments)


def _told(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
