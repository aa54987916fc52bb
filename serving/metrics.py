"""Counters of served models, and their Prometheus text with Triton's names.

Plain integers, written by the event loop alone: a request costs a few additions. The latency
histogram (``penstock_request_duration_seconds``) is what the operator's analysis reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from serving import contract

BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HISTOGRAM = "penstock_request_duration_seconds"
_MAX_SIZES = 256
"""Clients choose how many rows they send; sizes beyond so many different ones are not told apart."""
_NO_BATCH = (0, 0.0)


class ModelCounters:
    """What was counted for one version of one model; durations in seconds."""

    __slots__ = (
        "batches",
        "buckets",
        "compute_infer_s",
        "compute_input_s",
        "compute_output_s",
        "execs",
        "failure_s",
        "failures",
        "inferences",
        "last_s",
        "pending",
        "queue_s",
        "request_s",
        "successes",
    )

    def __init__(self) -> None:
        self.successes = 0
        self.failures: dict[str, int] = {}
        self.failure_s = 0.0
        self.inferences = 0
        self.execs = 0
        self.last_s = 0.0
        """When the engine last answered, by ``time.perf_counter``."""
        self.batches: dict[int, tuple[int, float]] = {}
        """Calls of the engine and their time, by the number of rows."""
        self.request_s = 0.0
        self.queue_s = 0.0
        self.compute_input_s = 0.0
        self.compute_infer_s = 0.0
        self.compute_output_s = 0.0
        self.pending = 0
        self.buckets = [0] * (len(BUCKETS_S) + 1)

    def executed(self, rows: int, infer_s: float, ended: float) -> None:
        """Counts a call of the engine with so many rows, which ended at ``ended``."""
        self.execs += 1
        self.inferences += rows
        self.last_s = ended
        count, total_s = self.batches.get(rows, _NO_BATCH)
        if count or len(self.batches) < _MAX_SIZES:
            self.batches[rows] = (count + 1, total_s + infer_s)

    def succeeded(self, request_s: float) -> None:
        """Counts a request answered well, from the receipt of its last byte to its answer."""
        self.successes += 1
        self.request_s += request_s
        self.buckets[bisect_left(BUCKETS_S, request_s)] += 1

    def failed(self, reason: str, request_s: float = 0.0) -> None:
        """Counts a request that got an error, by Triton's reason, and how long it took to it."""
        self.failure_s += request_s
        self.failures[reason] = self.failures.get(reason, 0) + 1


class Metrics:
    """The counters of every model version this process has served since it started."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], ModelCounters] = {}

    def of(self, model: str, version: str) -> ModelCounters:
        """The counters of a version; they outlive its reloads."""
        return self._counters.setdefault((model, version), ModelCounters())

    def text(self) -> str:
        """All counters in Prometheus' text format."""
        lines: list[str] = []
        for name, kind, explanation, value in _SIMPLE:
            lines += _head(name, kind, explanation)
            lines += (f"{name}{{{labels}}} {value(counters):.15g}" for labels, counters in self._labelled())
        lines += _head(contract.METRIC_FAILURE, "counter", "Requests that got an error")
        for labels, counters in self._labelled():
            for reason in sorted({"REJECTED", "CANCELED", "BACKEND", "OTHER", *counters.failures}):
                count = counters.failures.get(reason, 0)
                lines.append(f'{contract.METRIC_FAILURE}{{{labels},reason="{reason}"}} {count}')
        lines += _head(HISTOGRAM, "histogram", "Time from a request's last byte to its answer")
        for labels, counters in self._labelled():
            lines += _histogram(labels, counters)
        return "\n".join(lines) + "\n"

    def _labelled(self) -> Iterable[tuple[str, ModelCounters]]:
        for (model, version), counters in sorted(self._counters.items()):
            yield f'model="{model}",version="{version}"', counters


def _head(name: str, kind: str, explanation: str) -> list[str]:
    return [f"# HELP {name} {explanation}", f"# TYPE {name} {kind}"]


def _histogram(labels: str, counters: ModelCounters) -> list[str]:
    lines, total = [], 0
    for limit, count in zip((*BUCKETS_S, "+Inf"), counters.buckets, strict=True):
        total += count
        lines.append(f'{HISTOGRAM}_bucket{{{labels},le="{limit}"}} {total}')
    lines.append(f"{HISTOGRAM}_sum{{{labels}}} {counters.request_s:.15g}")
    lines.append(f"{HISTOGRAM}_count{{{labels}}} {total}")
    return lines


_SIMPLE: tuple[tuple[str, str, str, Callable[[ModelCounters], float]], ...] = (
    (contract.METRIC_SUCCESS, "counter", "Requests answered well", lambda c: c.successes),
    (contract.METRIC_COUNT, "counter", "Inferences, a batch of n counting n", lambda c: c.inferences),
    (contract.METRIC_EXEC_COUNT, "counter", "Calls of the engine", lambda c: c.execs),
    (
        contract.METRIC_REQUEST_DURATION_US,
        "counter",
        "Time of answered requests",
        lambda c: c.request_s * 1e6,
    ),
    (contract.METRIC_QUEUE_DURATION_US, "counter", "Time spent waiting", lambda c: c.queue_s * 1e6),
    (
        contract.METRIC_COMPUTE_INPUT_DURATION_US,
        "counter",
        "Time to decode",
        lambda c: c.compute_input_s * 1e6,
    ),
    (
        contract.METRIC_COMPUTE_INFER_DURATION_US,
        "counter",
        "Time in the engine",
        lambda c: c.compute_infer_s * 1e6,
    ),
    (
        contract.METRIC_COMPUTE_OUTPUT_DURATION_US,
        "counter",
        "Time to encode",
        lambda c: c.compute_output_s * 1e6,
    ),
    (contract.METRIC_PENDING, "gauge", "Requests waiting or in the engine", lambda c: c.pending),
)
