"""What status says of the evidence: how it stands, and how soon with this traffic what is not tolerated is found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from operators.api import counted
from operators.api.evidence import Evidence
from operators.api.model import Analysis
from operators.api.status import Standing
from operators.planning.analysis import agreement, detection, dispersion, verdict, weighing

_TWICE = 2.0
"""Disagreement is published for so many times the share that is allowed; at that share itself it is never found."""
_LARGEST_LOG = 50.0
"""Of an e-value that is told."""


def status(
    evidence: Evidence | None, settings: Analysis | None, judged: verdict.Verdict | None, weight: float
) -> dict[str, object]:
    """Fields of ``RolloutStatus``, for the candidate's share ``weight`` in [0, 1]."""
    if evidence is None or settings is None or judged is None:
        return {"evidence": None, "against": None, "in_favour": None, "verdict": "", "detection": ""} | dict.fromkeys(
            _TIMES
        )
    times_s = {field: _known_s(of(evidence, settings, weight)) for field, of in _TIMES.items()}
    told = [
        f"{what}, in about {_about(s)}"
        for what, s in zip(_worse(evidence, settings), times_s.values(), strict=True)
        if s is not None
    ]
    return {
        "evidence": evidence,
        "verdict": judged.sentence,
        "against": _standing(verdict.log_e(evidence, settings), settings.alpha),
        "in_favour": _standing(verdict.log_e_for(evidence, settings), settings.beta),
        "detection": f"with this traffic the analysis finds {' and '.join(told)}" if told else "",
        **{field: None if s is None else float(f"{s:.2g}") for field, s in times_s.items()},
    }


def detection_s(evidence: Evidence, settings: Analysis, weight: float, error_rate: float | None = None) -> float | None:
    """The median time in seconds until errors of ``error_rate`` (None: the stable's with the increase that is not
    tolerated) are found at the candidate's share ``weight``, both in [0, 1]; None while the traffic is not known.
    """
    stable = weighing.expected(evidence.base)
    candidate = stable + settings.max_error_rate_increase if error_rate is None else error_rate
    return _detection_s(evidence, settings, weight, [(stable, min(candidate, 1.0))])


def latency_detection_s(evidence: Evidence, settings: Analysis, weight: float) -> float | None:
    """The same for a candidate that is slower by the ratio that is not tolerated; None where latency is not judged."""
    told = [(edge.share, edge.share_if_slower) for edge in evidence.edges]
    return _detection_s(evidence, settings, weight, told) if told else None


def agreement_detection_s(evidence: Evidence, settings: Analysis, weight: float) -> float | None:
    """The same for a candidate whose answers differ ``_TWICE`` as often as is allowed; None where none are compared."""
    limit = settings.agreement
    if limit is None or not evidence.answered or not evidence.observed_s:
        return None
    rate = evidence.answered / evidence.observed_s * (1 - weight) * limit.percent / 100
    found = min(_TWICE * limit.max_disagreement, 1.0)
    gains = [rate * agreement.log_e(1, found, limit.max_disagreement, odds) for odds in weighing.WORSE]
    return detection.median_s(gains, verdict.metrics(settings) / settings.alpha, weighing.WINDOW_S)


def feedback_detection_s(evidence: Evidence, settings: Analysis, weight: float) -> float | None:
    """The same for a candidate of which users find more answers wrong, by what is not tolerated; None until they have
    told of some.
    """
    found = next((metric.tallies[0] for metric in evidence.metrics if metric.name == "feedback"), None)
    if settings.feedback is None or found is None or not found.stable[0] or not evidence.observed_s:
        return None
    rate, stable = (found.stable[0] + found.candidate[0]) / evidence.observed_s, weighing.expected(found.stable)
    candidate = min(stable + settings.feedback.max_increase, 1.0)
    gains = [rate * detection.gain(weight, stable, candidate, odds) for odds in weighing.WORSE]
    return detection.median_s(gains, verdict.metrics(settings) / settings.alpha, weighing.WINDOW_S)


def _detection_s(
    evidence: Evidence, settings: Analysis, weight: float, told: Sequence[tuple[float, float]]
) -> float | None:
    """From the shares of bad answers of the stable and of the candidate, by all that one metric looks at."""
    if not evidence.answered or not evidence.observed_s:
        return None
    rate, effect = evidence.answered / evidence.observed_s, weighing.design_effect(evidence)
    gains = [
        rate * detection.gain(weight, stable, candidate, odds) / dispersion.divisor(effect, odds)
        for stable, candidate in told
        for odds in weighing.WORSE
    ]
    return detection.median_s(gains, verdict.metrics(settings) / settings.alpha, weighing.WINDOW_S)


_TIMES = {
    "detection_s": detection_s,
    "latency_detection_s": latency_detection_s,
    "agreement_detection_s": agreement_detection_s,
    "feedback_detection_s": feedback_detection_s,
}


def _worse(evidence: Evidence, settings: Analysis) -> tuple[str, ...]:
    """What is found in each of ``_TIMES``; empty where it is not asked for."""
    slower, differs, wrong = settings.max_latency_increase, settings.agreement, settings.feedback
    stable = next((metric.tallies[0].stable for metric in evidence.metrics if metric.name == "feedback"), (0, 0))
    return (
        _more("failed requests", evidence.base, settings.max_error_rate_increase),
        f"answers {slower.ratio:g} times as slow" if slower else "",
        f"{100 * _TWICE * differs.max_disagreement:g} % answers that differ" if differs else "",
        _more("wrong answers by feedback", stable, wrong.max_increase) if wrong else "",
    )


def _more(what: str, stable: tuple[int, int], increase: float) -> str:
    """What is found, beside the ``stable``'s answers and bad ones among them."""
    share = stable[1] / stable[0] if stable[0] else 0.0
    return f"{100 * (share + increase):.2g} % {what} where the stable revision has {100 * share:.2g} %"


def _known_s(time_s: float | None) -> float | None:
    """When that is known here: what shows it has to be counted and told first."""
    return None if time_s is None else time_s + counted.REPORTED_S


def _standing(log_e: float, chance: float) -> Standing:
    return Standing(e=float(f"{math.exp(min(log_e, _LARGEST_LOG)):.3g}"), bound=float(f"{1 / chance:.3g}"))


def _about(time_s: float) -> str:
    """A time to two digits: 90 s, 35 min, 12 h."""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if time_s >= 2 * length_s:
            return f"{float(f'{time_s / length_s:.2g}'):g} {unit}"
    return f"{max(float(f'{time_s:.2g}'), 1.0):g} s"
