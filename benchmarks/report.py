"""A report: the question, the number, and what is needed to get the number again."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.load import Sample


@dataclasses.dataclass(frozen=True)
class Summary:
    """Latency percentiles of good answers in milliseconds, and everything that went wrong by its kind."""

    requests: int
    failed: Mapping[str, int]
    rate: float
    """Good answers a second, from the first due moment to the last answer."""
    p50_ms: float
    p90_ms: float
    p99_ms: float


def summarise(samples: Sequence[Sample]) -> Summary:
    """The summary of a run; percentiles are NaN when nothing succeeded."""
    good = [sample for sample in samples if not sample.error]
    failed = collections.Counter(sample.error for sample in samples if sample.error)
    if not good:
        return Summary(len(samples), dict(failed), 0.0, float("nan"), float("nan"), float("nan"))
    latencies_ms = np.array([sample.latency_s for sample in good]) * 1e3
    p50, p90, p99 = (float(value) for value in np.percentile(latencies_ms, (50, 90, 99)))
    took_s = max(s.due_s + s.latency_s for s in good) - min(s.due_s for s in samples)
    return Summary(len(samples), dict(failed), len(good) / took_s, p50, p90, p99)


def text(question: str, origin: Mapping[str, str], summary: Summary) -> str:
    """The report as a person reads it."""
    failed = ", ".join(f"{count} × {kind}" for kind, count in sorted(summary.failed.items())) or "none"
    figures = {
        "requests": str(summary.requests),
        "failed": failed,
        "rate": f"{summary.rate:.1f}/s",
        "p50": f"{summary.p50_ms:.2f} ms",
        "p90": f"{summary.p90_ms:.2f} ms",
        "p99": f"{summary.p99_ms:.2f} ms",
    }
    lines = [f"{name:<10}{value}" for name, value in {**origin, **figures}.items()]
    return "\n".join([question, "", *lines])
