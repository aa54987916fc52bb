"""One line of JSON for some of the requests: a sample of all, and of those that failed or took long.

The event loop decides and puts the record in a queue; a thread of its own makes the text and writes it. Whoever reads
the lines too slowly loses some and is told how many, in ``lost`` of the next line. Failures and slow requests are
written whatever the sample, but at most ``NOTABLE_PER_S`` each second: in an overload every request is one.
"""

from __future__ import annotations

import logging
import os
import queue
import threading

import orjson

from serving.telemetry.records import Record
from serving.telemetry.slowest import SLOW_S

NOTABLE_PER_S = 10
"""Failures and slow requests that are written whatever the sample."""
MAX_WAITING = 10_000
"""Lines that wait for the writer."""

_log = logging.getLogger(__name__)


class RequestLog:
    """Writes lines to a file descriptor until it is closed. ``wants`` and ``write`` are for the event loop's thread."""

    def __init__(self, share: float, descriptor: int) -> None:
        self.share = share
        """Of all requests, those that are written whatever becomes of them."""
        self._descriptor = descriptor
        self._second = 0
        self._notable = 0
        self._lost = 0
        self._waiting: queue.SimpleQueue[tuple[Record, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    def wants(self, took_s: float, failed: bool, now: float) -> bool:
        """Whether a request is written that is not of the sample; ``now`` is of any clock that does not go back."""
        if not failed and took_s < SLOW_S:
            return False
        second = int(now)
        if second != self._second:
            self._second, self._notable = second, 0
        self._notable += 1
        return self._notable <= NOTABLE_PER_S

    def write(self, record: Record) -> None:
        """Has a line written soon."""
        if self._waiting.qsize() >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.put((record, self._lost))
        self._lost = 0

    def close(self) -> None:
        """Writes what waits."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            record, lost = waiting
            document = record.document()
            if lost:
                document["lost"] = lost
            line = orjson.dumps(document) + b"\n"
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError as error:
                _log.warning("requests are not logged any more: %s", error.strerror)
                return
