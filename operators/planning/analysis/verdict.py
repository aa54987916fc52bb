"""What the evidence says by now, in one word and one sentence with the numbers.

Rollback: the mean of all metrics' e-values against "no worse than the stable one" reaches 1/α; each metric has its
share of α by that, and a mean of e-values is one whatever they have to do with each other. Promotion: each metric's
e-value against "worse than allowed" reaches 1/β; nothing is split, for whichever metric is bad has to be passed.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence

from operators.api.base import duration_s
from operators.api.evidence import Evidence, MetricEvidence
from operators.api.model import Analysis
from operators.planning.analysis import weighing


class Decision(enum.StrEnum):
    """What to do with the candidate."""

    GO_ON = "GoOn"
    """Nothing is shown yet."""
    ROLL_BACK = "RollBack"
    PROMOTE = "Promote"
    """Shown not to be worse than allowed; the last of the steps may be left."""
    PAUSE = "Pause"
    """The deadline passed, and a person is to decide."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A decision and why, in one sentence with numbers."""

    decision: Decision
    sentence: str
    inconclusive: bool = False
    """It was decided by the deadline, not by evidence."""


_INCONCLUSIVE = {"rollBack": Decision.ROLL_BACK, "promote": Decision.PROMOTE, "pause": Decision.PAUSE}


def judge(evidence: Evidence, settings: Analysis, waited_s: float = 0.0) -> Verdict:
    """What to do; ``waited_s`` is the time since the last step had its time, 0 before."""
    worse, good_enough = log_e(evidence, settings), [_mean(metric.against_bad) for metric in evidence.metrics]
    if worse >= -math.log(settings.alpha):
        metric = max(evidence.metrics, key=lambda one: _mean(one.against_good))
        bound = f"e-value {_times(worse)}, rolled back from {1 / settings.alpha:g} on"
        said = told(evidence, metric, settings, _worst(metric))
        return Verdict(Decision.ROLL_BACK, f"worse than the stable revision: {said} ({bound})")
    if len(evidence.metrics) == metrics(settings) and min(good_enough) >= -math.log(settings.beta):
        bound = f"e-value {_times(min(good_enough))}, promoted from {1 / settings.beta:g} on"
        said = " and ".join(told(evidence, metric, settings) for metric in evidence.metrics)
        return Verdict(Decision.PROMOTE, f"not worse than allowed: {said} ({bound})")
    state = (
        f"against the candidate {_times(worse)} of {1 / settings.alpha:g}, "
        f"for it {_times(min(good_enough))} of {1 / settings.beta:g}"
    )
    said = " and ".join(told(evidence, metric, settings) for metric in evidence.metrics)
    if waited_s >= duration_s(settings.deadline):
        why = f"inconclusive after {settings.deadline}, so onInconclusive: {settings.on_inconclusive} holds"
        return Verdict(_INCONCLUSIVE[settings.on_inconclusive], f"{why}: {said} ({state})", inconclusive=True)
    return Verdict(Decision.GO_ON, f"{said} ({state})")


def log_e(evidence: Evidence, settings: Analysis) -> float:
    """Natural logarithm of the e-value against "no worse than the stable revision", over all metrics.

    A metric that is not compared yet counts as 1, so that its beginning moves nothing.
    """
    logs = [_mean(metric.against_good) for metric in evidence.metrics]
    return _mean([*logs, *[0.0] * (metrics(settings) - len(logs))])


def log_e_for(evidence: Evidence, settings: Analysis) -> float:
    """Natural logarithm of the e-value against "worse than allowed": of the metric that has shown least."""
    logs = [_mean(metric.against_bad) for metric in evidence.metrics]
    return min([*logs, *[0.0] * (metrics(settings) - len(logs))])


def metrics(settings: Analysis) -> int:
    """How many share alpha."""
    return 1 + sum(one is not None for one in (settings.max_latency_increase, settings.agreement, settings.feedback))


def _worst(metric: MetricEvidence) -> int:
    """At which of the edges that are looked at the most speaks against the candidate; 0 where there are none."""
    alternatives = len(weighing.WORSE)
    return max(
        range(len(metric.tallies)),
        key=lambda place: _mean(metric.against_good[place * alternatives : (place + 1) * alternatives]),
    )


def told(evidence: Evidence, metric: MetricEvidence, settings: Analysis, edge: int = 0) -> str:
    """What was counted, in words; of latency at one ``edge``, the first is that of the percentile of the spec."""
    tally = metric.tallies[edge]
    if metric.name == "agreement":
        compared, disagreed = tally.candidate
        allowed = 0.0 if settings.agreement is None else settings.agreement.max_disagreement
        return f"its answers differ on {disagreed:,} of {compared:,} mirrored requests, {100 * allowed:g} % are allowed"
    if metric.name == "feedback":
        if not tally.candidate[0]:
            return "nobody has given feedback on it"
        n, wrong = tally.stable
        stable = f"{_percent(wrong, n)} of {n:,}" if n else "none is known"
        n, wrong = tally.candidate
        return f"{_percent(wrong, n)} of {n:,} answers with feedback were wrong, of the stable revision {stable}"
    what = "failed" if metric.name == "errors" else f"took over {evidence.edges[edge].above_us / 1000:g} ms"
    shares = [f"{_percent(bad, n)} of {n:,} requests" for n, bad in (tally.candidate, tally.stable)]
    return f"{shares[0]} {what}, of the stable revision {shares[1]}"


def _mean(logs: Sequence[float]) -> float:
    """Logarithm of the mean of what ``logs`` are logarithms of."""
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))


def _times(log_e: float) -> str:
    value = math.exp(min(log_e, 50.0))
    return f"{value:.3g}" if value < 1000 else f"{value:.1e}"


def _percent(bad: int, n: int) -> str:
    return f"{100 * bad / n:.3g} %" if n else "none"
