"""Counters of served models, and their Prometheus text with Triton's names.

Plain integers, written by the event loop alone: a request costs a few additions. What they are called and how they
are shown is said once (``Metrics.families``), for the text and for whoever exports them. The latency histogram
(``penstock_request_duration_seconds``) is what the operator's analysis reads.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from serving import contract
from serving.telemetry import process

BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HISTOGRAM = "penstock_request_duration_seconds"
BATCH_HISTOGRAM = "penstock_batch_size"
MAX_VERSIONS = 1000
"""Model versions counted by name; every further one is counted under ``OTHER``, so that versions which come and go
for a year make no scrape of a hundred megabytes."""
OTHER = "other"
_MAX_SIZES = 256
"""Clients choose how many rows they send; sizes beyond so many different ones are not told apart."""
_NO_BATCH = (0, 0.0)
_REASONS = ("BACKEND", "CANCELED", "OTHER", "REJECTED")
_T = TypeVar("_T")


class ModelCounters:
    """What was counted for one version of one model; durations in seconds."""

    __slots__ = (
        "batches",
        "buckets",
        "cache_hit_s",
        "cache_hits",
        "cache_miss_s",
        "cache_misses",
        "compute_infer_s",
        "compute_input_s",
        "compute_output_s",
        "evictions",
        "execs",
        "failure_s",
        "failures",
        "inferences",
        "last_s",
        "loads",
        "notable_s",
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
        self.cache_hits = 0
        self.cache_hit_s = 0.0
        self.cache_misses = 0
        self.cache_miss_s = 0.0
        self.loads = 0
        self.evictions = 0
        """How often it made room for other models (``serving.models.budget``)."""
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.notable_s = 0.0
        """An answer that took longer is told to whoever observes requests."""

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


Labels = tuple[tuple[str, str], ...]


class Distribution(NamedTuple):
    """Values of a histogram: how many up to each limit and beyond the last, not cumulated, and their sum."""

    limits: Sequence[float]
    counts: Sequence[int]
    sum: float


class Family(NamedTuple):
    """One metric: its name, its kind (``counter``, ``gauge`` or ``histogram``), and how it is read."""

    name: str
    kind: str
    explanation: str
    read: Callable[[], Iterable[tuple[Labels, float | Distribution]]]


class Metrics:
    """The counters of every model version this process has served since it started, and of the process itself."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], ModelCounters] = {}

    def of(self, model: str, version: str) -> ModelCounters:
        """The counters of a version; they outlive its reloads."""
        if len(self._counters) >= MAX_VERSIONS and (model, version) not in self._counters:
            model = version = OTHER
        return self._counters.setdefault((model, version), ModelCounters())

    def families(self) -> list[Family]:
        """Every metric there is. Reading one is safe from any thread."""
        return [
            *(
                Family(name, kind, explanation, functools.partial(self._each, value))
                for name, kind, explanation, value in _SIMPLE
            ),
            Family(contract.METRIC_FAILURE, "counter", "Requests that got an error", self._failures),
            Family(
                HISTOGRAM,
                "histogram",
                "Time from a request's last byte to its answer",
                lambda: self._each(lambda c: Distribution(BUCKETS_S, list(c.buckets), c.request_s)),
            ),
            Family(BATCH_HISTOGRAM, "histogram", "Rows that the engine was given at once", lambda: self._each(_sizes)),
            *(
                Family(name, kind, explanation, functools.partial(_one, value))
                for name, kind, explanation, value in process.METRICS
            ),
        ]

    def text(self) -> str:
        """All of them in Prometheus' text format."""
        return text(self.families())

    def _each(self, value: Callable[[ModelCounters], _T]) -> list[tuple[Labels, _T]]:
        return [
            ((("model", model), ("version", version)), value(counters))
            for (model, version), counters in sorted(self._counters.items())
        ]

    def _failures(self) -> Iterable[tuple[Labels, float]]:
        for labels, failures in self._each(lambda c: dict(c.failures)):
            for reason in sorted({*_REASONS, *failures}):
                yield (*labels, ("reason", reason)), failures.get(reason, 0)


def text(families: Iterable[Family]) -> str:
    """Metrics in Prometheus' text format."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.explanation}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.read():
            if isinstance(value, Distribution):
                lines += _histogram(family.name, labels, value)
            else:
                lines.append(f"{family.name}{_text(labels)} {value:.15g}")
    return "\n".join(lines) + "\n"


def _one(value: Callable[[], float]) -> list[tuple[Labels, float]]:
    return [((), value())]


def _text(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


def _histogram(name: str, labels: Labels, value: Distribution) -> list[str]:
    totals = list(itertools.accumulate(value.counts))
    return [
        *(
            f"{name}_bucket{_text((*labels, ('le', str(limit))))} {total}"
            for limit, total in zip((*value.limits, "+Inf"), totals, strict=True)
        ),
        f"{name}_sum{_text(labels)} {value.sum:.15g}",
        f"{name}_count{_text(labels)} {totals[-1]}",
    ]


def _sizes(counters: ModelCounters) -> Distribution:
    counts = [0] * (len(BATCH_SIZES) + 1)
    for rows, (count, _) in list(counters.batches.items()):
        counts[bisect_left(BATCH_SIZES, rows)] += count
    counts[-1] += counters.execs - sum(counts)  # of sizes that are not told apart
    return Distribution(BATCH_SIZES, counts, counters.inferences)


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
    (contract.METRIC_CACHE_HITS, "counter", "Requests answered with a kept answer", lambda c: c.cache_hits),
    (contract.METRIC_CACHE_MISSES, "counter", "Requests without a kept answer", lambda c: c.cache_misses),
    (contract.METRIC_CACHE_HIT_US, "counter", "Time to look up kept answers", lambda c: c.cache_hit_s * 1e6),
    (contract.METRIC_CACHE_MISS_US, "counter", "Time to look up in vain", lambda c: c.cache_miss_s * 1e6),
    ("penstock_model_loads_total", "counter", "Times it was loaded", lambda c: c.loads),
    ("penstock_model_evictions_total", "counter", "Times it made room for other models", lambda c: c.evictions),
    (contract.METRIC_PENDING, "gauge", "Requests waiting or in the engine", lambda c: c.pending),
)
