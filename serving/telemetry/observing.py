"""The one place that hears how each inference request ended, whatever protocol it came by.

It counts, and tells those who listen: log lines, traces, the slowest requests. What a listener wants to know of a
request is put together only when it asks (``Call``), so a request that interests nobody costs its counting and one
comparison.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from serving.errors import ServingError
from serving.telemetry.metrics import ModelCounters

if TYPE_CHECKING:
    from serving.scheduling.job import Way


class Facts(NamedTuple):
    """What is known of a request at its end; never its payload."""

    protocol: str
    """``v2``, ``v1`` or ``grpc``."""
    route: str
    """The path of its kind of request, with ``{model}`` for what differs."""
    path: str
    model: str
    """As the client named it where no model was found."""
    version: str
    id: str
    bytes_in: int
    bytes_out: int
    way: Way | None
    """Through the queue; None when it never got there."""


class Caller(NamedTuple):
    """What a request's caller sent of its trace."""

    traceparent: str
    tracestate: str


class Call(Protocol):
    """A request, as its protocol keeps it. Times are of ``time.perf_counter``."""

    @property
    def traced(self) -> bool:
        """Whether its caller sent a ``traceparent``."""

    def facts(self) -> Facts:
        """What is known of it."""

    def header(self, name: str) -> str | None:
        """A header or metadata value by its lower-case name; None without one."""


class Listener(Protocol):
    """Told of requests on the event loop, so it must not block."""

    hears_traced: bool
    """Whether it wants every request that its caller traces."""
    hears_failed: bool
    """Whether it wants every request that failed."""

    def unheard(self) -> float:
        """How many requests it does not want before the next one of its sample; asked again after each of these."""

    def ended(self, call: Call, counters: ModelCounters | None, end: End) -> None:
        """A request got its answer, or its error; without counters where it named no model that is served.

        It is told of all that took longer than ``ModelCounters.notable_s``, of its sample, and of those it wants.
        """


class End(NamedTuple):
    """How a request ended; times are of ``time.perf_counter``."""

    received: float
    ended: float
    error: ServingError | None
    sampled: bool
    """Whether it is of the listener's sample."""


class Observer:
    """Counts requests at their end and tells the listener."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._hears_traced = listener is not None and listener.hears_traced
        self._hears_failed = listener is not None and listener.hears_failed
        self._unheard = math.inf if listener is None else listener.unheard()

    def answered(self, call: Call, counters: ModelCounters, received: float, computed: float) -> None:
        """A request was answered; ``computed`` is when the encoding of its answer began."""
        now = time.perf_counter()
        counters.compute_output_s += now - computed
        took_s = now - received
        counters.succeeded(took_s)
        self._unheard -= 1
        if self._unheard < 0 or took_s > counters.notable_s or (self._hears_traced and call.traced):
            self._tell(call, counters, received, now, None)

    def refused(self, call: Call, counters: ModelCounters | None, received: float, error: ServingError) -> None:
        """A request got an error; without counters, because it named no model that is served.

        ``received`` is 0 when its body was not awaited.
        """
        now = time.perf_counter()
        received = received or now
        is_slow = False
        if counters is not None:
            counters.failed(error.reason, now - received)
            is_slow = now - received > counters.notable_s
        self._unheard -= 1
        if self._unheard < 0 or is_slow or self._hears_failed:
            self._tell(call, counters, received, now, error)

    def _tell(
        self, call: Call, counters: ModelCounters | None, received: float, now: float, error: ServingError | None
    ) -> None:
        if self._listener is not None:
            self._listener.ended(call, counters, End(received, now, error, self._unheard < 0))
            if self._unheard < 0:
                self._unheard = self._listener.unheard()
