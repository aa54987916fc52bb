"""One line of JSON for some of the requests: a sample of all, and of those that failed or took long.

The event loop decides and keeps the record; once a second a thread of its own is woken, makes the text and writes it
(to wake it for each line costs more than the line). Whoever reads the lines too slowly loses some and is told how many,
in ``lost`` of the next line. Failures and slow requests are written whatever the sample, but at most ``NOTABLE_PER_S``
each second: in an overload every request is one.
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
_TOGETHER = 500
"""Lines for which the writer is woken at once."""

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
        self._lines: list[tuple[Record, int]] = []
        self._handed_over = 0
        self._written = 0
        self._waiting: queue.SimpleQueue[list[tuple[Record, int]] | None] = queue.SimpleQueue()
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
        """Has a line written within a second."""
        if self._handed_over - self._written + len(self._lines) >= MAX_WAITING:
            self._lost += 1
            return
        self._lines.append((record, self._lost))
        self._lost = 0
        if len(self._lines) >= _TOGETHER:
            self.hand_over()

    def hand_over(self) -> None:
        """Wakes the writer for what there is; called once a second."""
        if self._lines:
            self._handed_over += len(self._lines)
            self._waiting.put(self._lines)
            self._lines = []

    def close(self) -> None:
        """Writes what waits."""
        self.hand_over()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            text = b"".join(_line(record, lost) for record, lost in waiting)
            try:
                while text:
                    text = text[os.write(self._descriptor, text) :]
            except OSError as error:
                _log.warning("requests are not logged any more: %s", error.strerror)
                return
            self._written += len(waiting)


def _line(record: Record, lost: int) -> bytes:
    document = record.document()
    if lost:
        document["lost"] = lost
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
