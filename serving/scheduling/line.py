"""Who goes next, and with whom: the requests that wait for one engine.

Requests stand in levels by priority, 1 first, and in the order they came within a level. The engine's thread takes
whoever is first, and with it those that may share its call, level by level and in order, until ``max_rows`` rows or
``MAX_JOINED_BYTES`` are together. Requests of other shapes stay where they are, so the oldest of the highest level
always goes next: between equals nobody waits for ever. A lower level waits as long as a higher one is never empty;
that is what priorities are for.

While the engine computes nobody waits for a timer: whoever has come by its end goes together. Only a request that
finds the engine idle may be held back, for ``max_delay_s``, in case others come.

``take`` is for the engine's thread alone, everything else for the event loop.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Callable

from serving.scheduling.job import Job

MAX_JOINED_BYTES = 16 * 2**20
"""Inputs are copied to be joined; beyond this a larger call saves nothing, and the copy is memory."""
_AWAKE = math.inf


class Line:
    """Requests that wait for one engine."""

    def __init__(self, max_rows: int, max_delay_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self.rows = 0
        """Rows of those that wait."""
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._clock = clock
        self._levels: dict[int, deque[Job]] = {}
        self._order: list[int] = []
        self._lock = threading.Lock()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rings_at = _AWAKE
        """How many rows the engine's thread wants to be woken for; infinite while it is awake."""
        self._closed = False

    def put(self, job: Job, ring: bool = True) -> None:
        """Adds a request; without ``ring`` for whoever ``pick``s next."""
        with self._lock:
            level = self._levels.get(job.priority)
            if level is None:
                level = self._levels[job.priority] = deque()
                insort(self._order, job.priority)
            level.append(job)
            self.rows += job.rows
            if ring and self.rows >= self._rings_at:
                self._ring()

    def take(self) -> list[Job] | None:
        """Who goes next: waits for somebody to come; None when the line is closed and empty."""
        held_until: float | None = None
        was_idle = False
        while True:
            with self._lock:
                if self._order:
                    if was_idle and held_until is None:
                        held_until = self._clock() + self._max_delay_s
                    left_s = self._left_s(held_until)
                    if left_s <= 0:
                        self._rings_at = _AWAKE
                        return self._picked()
                    self._rings_at = self._max_rows
                elif self._closed:
                    return None
                else:
                    was_idle, held_until, left_s = True, None, None
                    self._rings_at = 0
            with contextlib.suppress(queue.Empty):  # then the time for others to come is over
                self._bell.get(timeout=left_s)

    def pick(self) -> list[Job] | None:
        """Who goes next, without waiting; None when nobody is there."""
        with self._lock:
            return self._picked() if self._order else None

    def discard(self, job: Job) -> None:
        """Takes a request out of the line; harmless when it is not there."""
        with self._lock:
            level = self._levels.get(job.priority)
            if level is not None and job in level:
                level.remove(job)
                self._left(job)

    def discard_all(self, which: Callable[[Job], bool]) -> list[Job]:
        """Takes out every request of which this holds, and gives them."""
        with self._lock:
            found = [job for priority in self._order for job in self._levels[priority] if which(job)]
            for job in found:
                self._levels[job.priority].remove(job)
                self._left(job)
            return found

    def discard_beyond(self, rows: int) -> list[Job]:
        """Takes out those at the end of the line until no more than so many rows wait, and gives them."""
        found: list[Job] = []
        with self._lock:
            while self.rows > rows and self._order:
                job = self._levels[self._order[-1]].pop()
                self._left(job)
                found.append(job)
        return found

    def close(self) -> None:
        """Lets ``take`` end when nobody waits any more."""
        with self._lock:
            self._closed = True
            self._ring()

    def _ring(self) -> None:
        self._rings_at = _AWAKE
        self._bell.put(None)

    def _left_s(self, held_until: float | None) -> float:
        """How long those that wait are still held back for others to come."""
        if held_until is None or self.rows >= self._max_rows or self._closed:
            return 0.0
        return held_until - self._clock()

    def _left(self, job: Job) -> None:
        self.rows -= job.rows
        if not self._levels[job.priority]:
            del self._levels[job.priority]
            self._order.remove(job.priority)

    def _picked(self) -> list[Job]:
        first = self._levels[self._order[0]].popleft()
        self._left(first)
        jobs = [first]
        if first.key is None:
            return jobs
        rows, size_bytes = self._max_rows - first.rows, MAX_JOINED_BYTES - first.size_bytes
        for priority in tuple(self._order):
            level, passed = self._levels[priority], []
            while level and rows > 0:
                job = level.popleft()
                if job.key != first.key:
                    passed.append(job)
                    continue
                rows, size_bytes = rows - job.rows, size_bytes - job.size_bytes
                if rows < 0 or size_bytes < 0:  # nobody of its shape overtakes it
                    passed.append(job)
                    rows = 0
                else:
                    jobs.append(job)
                    self.rows -= job.rows
            level.extendleft(reversed(passed))
            if not level:
                del self._levels[priority]
                self._order.remove(priority)
            if rows <= 0:
                break
        return jobs
