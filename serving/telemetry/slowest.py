"""The slowest requests of each model version: the ``KEEP`` slowest of this window of time and of the one before.

Two windows of ``WINDOW_S`` that take turns, so that what is shown is between one and two windows old and nothing has
to be aged entry by entry. While a window holds fewer than ``KEEP`` requests every one belongs to it; afterwards only
one slower than the fastest kept, and that limit (``ModelCounters.notable_s``) is all that a fast request meets.
Of N requests in any order about ``KEEP`` · ln(N / ``KEEP``) are ever looked at: 170 of 100,000.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from serving.telemetry.metrics import ModelCounters
from serving.telemetry.records import Record

KEEP = 20
SLOW_S = 1.0
"""A request that took this long is notable, whatever the others took."""
WINDOW_S = 300.0


class Slowest:
    """The table. ``now`` is of any clock that does not go back."""

    def __init__(self, now: float) -> None:
        self._until = now + WINDOW_S
        self._current: dict[ModelCounters, list[tuple[float, int, Record]]] = {}
        self._before: dict[ModelCounters, list[tuple[float, int, Record]]] = {}
        self._order = itertools.count()

    def add(self, counters: ModelCounters, record: Record) -> None:
        """Keeps a request if it is one of the slowest; it need not be offered unless it took ``counters.notable_s``."""
        heap = self._current.setdefault(counters, [])
        entry = (record.total_s, next(self._order), record)
        if len(heap) < KEEP:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
        if len(heap) == KEEP:
            counters.notable_s = min(heap[0][0], SLOW_S)

    def turn(self, now: float) -> None:
        """Begins a new window when this one is over."""
        if now < self._until:
            return
        for counters in self._current:
            counters.notable_s = 0.0
        self._before = self._current if now < self._until + WINDOW_S else {}
        self._current = {}
        self._until = now + WINDOW_S

    def records(self) -> Iterator[list[Record]]:
        """For each model version, by name, its slowest requests, the slowest first."""
        tables = []
        for counters in {**self._current, **self._before}:
            entries = [*self._current.get(counters, ()), *self._before.get(counters, ())]
            tables.append([record for _, _, record in sorted(entries, reverse=True)[:KEEP]])
        yield from sorted(tables, key=lambda table: (table[0].model, table[0].version))
