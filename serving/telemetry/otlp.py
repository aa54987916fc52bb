"""Which signals are exported over OTLP, and to where: OpenTelemetry's own environment variables, and nothing else.

The SDK and its exporters read them (endpoints, headers, certificates, samplers, intervals); here is read only whether
they ask for anything, so that nothing of OpenTelemetry is imported where they do not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

TRACES, METRICS = "traces", "metrics"
_PROTOCOL = "http/protobuf"
_SILENCE_S = 60.0
_E = TypeVar("_E")

_log = logging.getLogger(__name__)


def signals(env: Mapping[str, str]) -> frozenset[str]:
    """What the environment asks for: ``traces``, ``metrics``.

    A signal is asked for by an OTLP endpoint, its own or the common one, and left out by its exporter ``none``.
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    return frozenset(signal for signal in (TRACES, METRICS) if _is_wanted(env, signal))


def _is_wanted(env: Mapping[str, str], signal: str) -> bool:
    name = signal.upper()
    endpoint = env.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporters = env.get(f"OTEL_{name}_EXPORTER") or "otlp"
    protocol = env.get(f"OTEL_EXPORTER_OTLP_{name}_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or _PROTOCOL
    if not endpoint or "otlp" not in [exporter.strip() for exporter in exporters.split(",")]:
        return False
    if protocol != _PROTOCOL:
        _log.warning(
            "no %s are exported: OTEL_EXPORTER_OTLP_PROTOCOL is '%s', expected '%s' (a collector's port 4318)",
            signal, protocol, _PROTOCOL,
        )  # fmt: skip
    return protocol == _PROTOCOL


def span_exporter() -> SpanExporter:
    """What sends spans; ImportError where OpenTelemetry is not installed."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from serving.telemetry.spans import Exporter

    return _quiet(Exporter(), OTLPSpanExporter)


def metric_exporter() -> MetricExporter:
    """What sends metrics; ImportError where OpenTelemetry is not installed."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return _quiet(OTLPMetricExporter(), OTLPMetricExporter)


def _quiet(exporter: _E, logs: type) -> _E:
    """An exporter repeats itself at every attempt while a collector is away; a line a minute says the same."""
    logging.getLogger(logs.__module__).addFilter(Seldom(time.monotonic))
    return exporter


class Seldom(logging.Filter):
    """Lets one line a minute through."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _SILENCE_S
        return True
