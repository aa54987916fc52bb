"""Everything that listens to requests, put together from what the command line and the environment ask for.

Traces and OTLP metrics are switched on by OpenTelemetry's own variables, and its packages are imported only then.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import InvalidInput
from serving.service import Service
from serving.telemetry import otlp, page, records
from serving.telemetry.metrics import Metrics, ModelCounters
from serving.telemetry.observing import Call, End
from serving.telemetry.request_log import RequestLog
from serving.telemetry.sampling import Share
from serving.telemetry.slowest import Slowest

if TYPE_CHECKING:
    from serving.telemetry.meters import Meters
    from serving.telemetry.tracing import Tracing

CLOSE_S = 5.0
"""How long the end of a process waits for what is still to be exported."""

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


class Telemetry:
    """The listener of a server process."""

    def __init__(
        self, log: RequestLog | None = None, tracing: Tracing | None = None, meters: Meters | None = None
    ) -> None:
        self.hears_traced = tracing is not None
        self._slowest = Slowest(time.monotonic())
        self._request_log = log
        self._logged = Share(0.0 if log is None else log.share)
        self._tracing = tracing
        self._traced = Share(0.0 if tracing is None else tracing.share)
        self._meters = meters
        self._unheard = math.inf

    def unheard(self) -> float:
        """How many requests may pass before one is to be logged or traced."""
        self._unheard = min(self._logged.unheard, self._traced.unheard)
        return self._unheard

    def ended(self, call: Call, counters: ModelCounters | None, end: End) -> None:
        """Makes of a request what is wanted of it: spans, a line, a place among the slowest."""
        passed = self._unheard + 1 if end.sampled else 0
        logs, traces = self._logged.passed(passed), self._traced.passed(passed)
        trace_id = None if self._tracing is None else self._tracing.ended(call, end, traces)
        took_s = end.ended - end.received
        if self._request_log is not None and not logs:
            logs = self._request_log.wants(took_s, end.error is not None, end.ended)
        is_slow = counters is not None and took_s > counters.notable_s
        if not logs and not is_slow:
            return
        if trace_id is None:
            trace_id = records.trace_id(call.header("traceparent"))
        record = records.of(call, end, trace_id)
        if counters is not None and is_slow:
            self._slowest.add(counters, record)
        if self._request_log is not None and logs:
            self._request_log.write(record)

    def every_second(self) -> None:
        """Does what has its time."""
        self._slowest.turn(time.monotonic())
        if self._request_log is not None:
            self._request_log.hand_over()
        if self._tracing is not None:
            self._tracing.every_second()

    def show(self, service: Service) -> None:
        """Has the service show its requests."""

        def requests_page(as_html: bool) -> bytes:
            in_work = [pair for source in service.in_work for pair in source()]
            shown = page.document(in_work, self._slowest.records())
            return page.as_html(shown) if as_html else page.as_json(shown)

        service.requests_page = requests_page

    def close(self) -> None:
        """Writes and exports what waits, side by side and for ``CLOSE_S`` at most; blocks."""
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
