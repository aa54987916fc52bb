"""What is kept and shown of one request: sizes, times and names, never its content.

An error is named by its kind only, because its text may quote what the client sent.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

from serving.scheduling.job import Way
from serving.telemetry.observing import End, Facts

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TEXT = 128
"""Longest name or id; both may come from the client."""


class Record(NamedTuple):
    """One request at its end. Durations in seconds, None for what it did not come to."""

    ended_at: float
    """Seconds since the epoch."""
    protocol: str
    model: str
    version: str
    id: str
    status: int
    """HTTP status; of a gRPC call, the one that its error has over REST."""
    reason: str
    """Triton's label of a failure; empty for an answer."""
    error: str
    bytes_in: int
    bytes_out: int
    batch: int | None
    """Rows that the engine was given at once."""
    decode_s: float | None
    queue_s: float | None
    compute_s: float | None
    encode_s: float | None
    total_s: float
    trace_id: str
    cached: bool = False
    """Whether its answer was kept, so that nothing was computed."""

    def document(self) -> dict[str, Any]:
        """The record as JSON shows it, with times in milliseconds, without what it did not come to."""
        shown = {
            "time": datetime.fromtimestamp(self.ended_at, UTC).isoformat(timespec="milliseconds"),
            "protocol": self.protocol,
            "model": self.model,
            "version": self.version,
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "error": self.error,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "batch": self.batch,
            "cached": self.cached or None,
            "decode_ms": _ms(self.decode_s),
            "queue_ms": _ms(self.queue_s),
            "compute_ms": _ms(self.compute_s),
            "encode_ms": _ms(self.encode_s),
            "total_ms": _ms(self.total_s),
            "trace_id": self.trace_id,
        }
        return {name: value for name, value in shown.items() if value not in (None, "")}


def of(facts: Facts, end: End, trace_id: str) -> Record:
    """The record of a request."""
    received, ended, error = end.received, end.ended, end.error
    way = facts.way
    computed = None if way is None else computation(way, ended)
    begun, until = computed or (ended, ended)
    return Record(
        ended_at=time.time() - time.perf_counter() + ended,
        protocol=facts.protocol,
        model=facts.model[:MAX_TEXT],
        version=facts.version[:MAX_TEXT],
        id=facts.id[:MAX_TEXT],
        status=200 if error is None else error.http,
        reason="" if error is None else error.reason,
        error="" if error is None else type(error).__name__,
        bytes_in=facts.bytes_in,
        bytes_out=facts.bytes_out,
        batch=None if way is None or computed is None else rows(way),
        decode_s=None if way is None else way.submitted - received,
        queue_s=None if way is None else begun - way.submitted,
        compute_s=None if computed is None else until - begun,
        encode_s=None if computed is None else ended - until,
        total_s=ended - received,
        trace_id=trace_id,
        cached=way is not None and way.cached,
    )


def computation(way: Way, ended: float) -> tuple[float, float] | None:
    """When the engine worked for a request that ended at ``ended``; None when it never came to that.

    Of a request that was given up while the engine goes on, until then.
    """
    call = way.call
    if call is not None:
        return call.begun, call.ended if call.begun < call.ended < ended else ended
    return (way.begun, way.ended) if way.ended > way.begun else None


def rows(way: Way) -> int:
    """How many rows the engine was given at once with this request."""
    return way.rows if way.call is None else way.call.rows


def trace_id(traceparent: str | None) -> str:
    """The trace id in a W3C traceparent; empty when there is none to be read."""
    found = _TRACEPARENT.match(traceparent or "")
    return "" if found is None else found[1]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
