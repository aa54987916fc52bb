"""Everything that listens to requests, put together from what the command line and the environment ask for.

Traces and OTLP metrics are switched on by OpenTelemetry's own variables, and its packages are imported only then.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from serving.errors import InvalidInput
from serving.service import Service
from serving.telemetry import otlp, records
from serving.telemetry.metrics import Metrics, ModelCounters
from serving.telemetry.observing import Call, Caller, End, Facts
from serving.telemetry.request_log import RequestLog
from serving.telemetry.sampling import Shares
from serving.telemetry.slowest import Slowest

if TYPE_CHECKING:
    from serving.telemetry.meters import Meters
    from serving.telemetry.tracing import Tracing

CLOSE_S = 5.0
"""How long the end of a process waits for what is still to be exported."""

_TOGETHER = 32
"""Requests that are told of in a row; about 0.5 ms of the event loop."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is wanted beyond ``/metrics`` and ``/debug/requests``, which always are."""

    signals: frozenset[str] = frozenset()
    """Exported over OTLP (``otlp.signals``)."""
    log_rate: float | None = None
    """Share of requests that are logged whatever becomes of them; None: no line at all."""
    log_file: Path | None = None
    """None: standard error."""


class _Noted(NamedTuple):
    """A request of which something is to be told; nothing in it holds tensors."""

    facts: Facts
    caller: Caller | None
    counters: ModelCounters | None
    end: End


class Telemetry:
    """The listener of a server process.

    What is wanted of a request is made a moment later, of ``_TOGETHER`` requests in a row and at least once a second:
    for one request in a hundred the code that makes it is out of the processor's caches, and takes ten times as long.
    """

    def __init__(
        self, log: RequestLog | None = None, tracing: Tracing | None = None, meters: Meters | None = None
    ) -> None:
        self.hears_traced = tracing is not None
        self.hears_failed = tracing is not None or log is not None
        self._slowest = Slowest(time.monotonic())
        self._request_log = log
        self._tracing = tracing
        self._shares = Shares(0.0 if log is None else log.share, 0.0 if tracing is None else tracing.share)
        self.unheard = self._shares.unheard
        self._meters = meters
        self._noted: list[_Noted] = []

    def ended(self, call: Call, counters: ModelCounters | None, end: End) -> None:
        """Notes a request of which something is wanted: spans, a line, a place among the slowest."""
        caller = None
        if call.traced:
            caller = Caller(call.header("traceparent") or "", call.header("tracestate") or "")
        self._noted.append(_Noted(call.facts(), caller, counters, end))
        if len(self._noted) >= _TOGETHER or end.error is not None:  # an error's traceback may hold tensors
            self._tell()

    def _tell(self) -> None:
        noted, self._noted = self._noted, []
        for one in noted:
            self._tell_of(one)

    def _tell_of(self, noted: _Noted) -> None:
        facts, caller, counters, end = noted
        logs, traces = self._shares.of_one() if end.sampled else (False, False)
        trace_id = None if self._tracing is None else self._tracing.ended(facts, caller, end, traces)
        took_s = end.ended - end.received
        if self._request_log is not None and not logs:
            logs = self._request_log.wants(took_s, end.error is not None, end.ended)
        is_slow = counters is not None and took_s > counters.notable_s
        if not logs and not is_slow:
            return
        if trace_id is None:
            trace_id = "" if caller is None else records.trace_id(caller.traceparent)
        record = records.of(facts, end, trace_id)
        if counters is not None and is_slow:
            self._slowest.add(counters, record)
        if self._request_log is not None and logs:
            self._request_log.write(record)

    def every_second(self) -> None:
        """Does what has its time."""
        self._tell()
        self._slowest.turn(time.monotonic())
        if self._request_log is not None:
            self._request_log.hand_over()
        if self._tracing is not None:
            self._tracing.every_second()

    def show(self, service: Service) -> None:
        """Has the service show its requests."""

        def requests_page(as_html: bool) -> bytes:
            from serving.telemetry import page

            self._tell()
            in_work = [pair for source in service.in_work for pair in source()]
            shown = page.document(in_work, self._slowest.records(), service.worker)
            return page.as_html(shown) if as_html else page.as_json(shown)

        service.requests_page = requests_page

    def close(self) -> None:
        """Writes and exports what waits, side by side and for ``CLOSE_S`` at most; blocks."""
        self._tell()
        parts = [part for part in (self._request_log, self._tracing, self._meters) if part is not None]
        closing = [threading.Thread(target=part.close, daemon=True) for part in parts]
        deadline = time.monotonic() + CLOSE_S
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in closing):
            _log.warning("not everything was exported within %g s of the end", CLOSE_S)


def start(asked: Asked, metrics: Metrics) -> Telemetry:
    """The telemetry that was asked for; what cannot be had is a line in the log, since serving goes on without it."""
    log = None if asked.log_rate is None else RequestLog(asked.log_rate, _opened(asked.log_file))
    tracing: Tracing | None = None
    meters: Meters | None = None
    try:
        if otlp.TRACES in asked.signals:
            tracing = importlib.import_module("serving.telemetry.tracing").Tracing(otlp.span_exporter())
        if otlp.METRICS in asked.signals:
            exporter = otlp.metric_exporter()
            meters = importlib.import_module("serving.telemetry.meters").Meters(metrics.families(), exporter)
    except ImportError as error:
        _log.warning("nothing is exported over OTLP (%s); install penstock[telemetry] to have it", error)
    return Telemetry(log, tracing, meters)


def _opened(file: Path | None) -> int:
    if file is None:
        return sys.stderr.fileno()
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written ({error.strerror}); give another file with --log-requests"
        ) from error
