"""The counters of ``serving.telemetry.metrics`` over OTLP: the same names, labels and numbers as ``/metrics`` shows.

Nothing is counted twice: the SDK's instruments are observable, so they read the counters when it is time to export.
It has no observable histogram; ours are put beside the rest on their way to the exporter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)

from serving.telemetry.metrics import MAX_VERSIONS, Distribution, Family

_MAX_SERIES = 8 * MAX_VERSIONS
"""Of one metric; the SDK's own limit is lower than what we may have, and our labels are bounded already."""


class Meters:
    """Exports metrics in the background at the SDK's interval (``OTEL_METRIC_EXPORT_INTERVAL``)."""

    def __init__(self, families: Sequence[Family], exporter: MetricExporter) -> None:
        histograms = [family for family in families if family.kind == "histogram"]
        self._reader = PeriodicExportingMetricReader(
            _WithHistograms(exporter, histograms),
            cardinality_limits={ObservableCounter: _MAX_SERIES, ObservableGauge: _MAX_SERIES},
        )
        meter = MeterProvider([self._reader], shutdown_on_exit=False).get_meter("penstock")
        for family in families:
            if family.kind == "counter":
                meter.create_observable_counter(family.name, [_callback(family)], description=family.explanation)
            elif family.kind == "gauge":
                meter.create_observable_gauge(family.name, [_callback(family)], description=family.explanation)

    def close(self) -> None:
        """Exports once more."""
        self._reader.shutdown()


def _callback(family: Family) -> Any:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        for labels, value in family.read():
            assert not isinstance(value, Distribution)
            yield Observation(value, dict(labels))

    return observe


class _WithHistograms(MetricExporter):
    """An exporter that adds our histograms to what the SDK collected."""

    def __init__(self, exporter: MetricExporter, families: Sequence[Family]) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._families = families
        self._begun_ns = time.time_ns()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        return self._exporter.export(
            MetricsData([self._with(of) for of in metrics_data.resource_metrics]), timeout_millis
        )

    def _with(self, of: ResourceMetrics) -> ResourceMetrics:
        first, *others = of.scope_metrics
        metrics = [*first.metrics, *(self._metric(family) for family in self._families)]
        return ResourceMetrics(
            of.resource, [ScopeMetrics(first.scope, metrics, first.schema_url), *others], of.schema_url
        )

    def _metric(self, family: Family) -> Metric:
        now_ns = time.time_ns()
        points = []
        for labels, value in family.read():
            assert isinstance(value, Distribution)
            points.append(
                HistogramDataPoint(
                    attributes=dict(labels),
                    start_time_unix_nano=self._begun_ns,
                    time_unix_nano=now_ns,
                    count=sum(value.counts),
                    sum=value.sum,
                    bucket_counts=value.counts,
                    explicit_bounds=value.limits,
                    min=None,  # type: ignore[arg-type]  # of OTLP's two optional fields neither is counted
                    max=None,  # type: ignore[arg-type]
                )
            )
        return Metric(family.name, family.explanation, "", Histogram(points, AggregationTemporality.CUMULATIVE))

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis)
