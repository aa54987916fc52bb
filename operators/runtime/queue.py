"""A work queue of keys: what has to be looked at, never what happened to it.

A key waits at most once, however often it is added, and is worked on by one worker at a time; one that is
added while it is worked on waits again afterwards. Keys come out in the order they went in, so one that keeps
failing, which returns only after its backoff, holds nobody up. Starting to work on a key supersedes any later
look that was planned for it: the work itself says when to look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

from operators.runtime.backoff import Backoff

K = TypeVar("K", bound=Hashable)


class Queue(Generic[K]):
    """Keys to work on, now or later. Used from one event loop."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._in_work: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Keys that wait for a worker; those planned for later are not among them."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Have ``key`` worked on as soon as its turn comes."""
        if key in self._in_work:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Have ``key`` worked on after ``delay_s`` at the latest."""
        loop = asyncio.get_running_loop()
        planned = self._timers.get(key)
        if planned is not None:
            if planned.when() <= loop.time() + delay_s:
                return
            planned.cancel()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    def retry(self, key: K) -> float:
        """Plan ``key`` again after a failure; gives the delay, longer after each failure in a row."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = self._backoff.delay_s(failures)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """Let the next failure of ``key`` count as its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; ``done`` must follow."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._in_work.add(key)
        planned = self._timers.pop(key, None)
        if planned is not None:
            planned.cancel()
        return key

    def done(self, key: K) -> None:
        """The worker let go of ``key``."""
        self._in_work.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Drop what is planned for later, so that nothing fires once the workers have gone."""
        for planned in self._timers.values():
            planned.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
