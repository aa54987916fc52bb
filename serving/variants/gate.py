"""The rule a variant must pass before it may serve: a function of what was measured, with a reason for each answer.

In this order, and the first that fails is the reason: its answers are finite and within reach of the source's; the
upper bound on its drop is within ``max_drop``; so it is in every slice; and it costs less, by a factor of at least
``LEAST_GAIN``, than the best variant accepted before it.

*Slices.* A variant is accepted only if every slice passes at level alpha. One that is too bad in some slice passes at
most as often as that slice alone does, so alpha holds however many slices there are, without a correction (an
intersection-union test: Berger, Technometrics 24 (1982) 295). What many small slices cost is good variants refused for
want of samples; ``samples_needed`` says how many it takes for one that loses nothing to pass ``POWER`` of the time.
Each bound is then met with the chance POWER^(1 / how many there are), which is enough for all together.

*Cost.* Variants are looked at from the dearest to the cheapest, the source first. So nothing that costs more than the
source passes, nor a variant that differs from an accepted one in name only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy import stats

from serving.variants import intervals

LEAST_GAIN = 1.1
POWER = 0.9
"""How often a variant that loses nothing should pass, where there are samples enough."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice of the data: the drop of the metric in it, as estimate and as upper bound."""

    name: str
    samples: int
    drop: float
    drop_upper_bound: float


@dataclasses.dataclass(frozen=True)
class Quality:
    """What a variant is worth on the same samples as its source. ``value`` and drops are in units of the metric."""

    value: float
    drop: float
    drop_upper_bound: float
    samples: int
    disagreement: float
    """Share of samples that it answers otherwise than the source."""
    churn: float = 0.0
    """Share of samples that only one of the two has right, where the metric is a share."""
    slices: tuple[Slice, ...] = ()
    not_finite: int = 0
    """Samples with a NaN or an infinity where the source has none."""
    out_of_range: int = 0
    """Samples with a value further outside what the source answers than that range is wide."""

    @property
    def worst_slice(self) -> Slice | None:
        """The slice that may have lost most."""
        return max(self.slices, key=lambda one: (_or_all(one.drop_upper_bound), _or_all(one.drop)), default=None)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is asked: bounds in units of the metric, ``alpha`` the chance to accept a variant that is worse."""

    max_drop: float
    alpha: float
    max_slice_drop: float | None = None
    slice_by: str = ""
    is_share: bool = True
    """Whether the metric is a share of samples."""
    has_points: bool = True
    """Whether it goes from 0 to 1, so that drops are told in points."""


@dataclasses.dataclass(frozen=True)
class Needed:
    """Samples at which a variant that loses no more than it gains, and else is as the one seen, passes ``POWER`` of
    the time.
    """

    overall: int
    each_slice: int | None
    """None without slices, or without a bound on them."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A variant as the gate sees it. ``cost`` is what the objective counts: CPU ms of a sample, or bytes."""

    name: str
    quality: Quality
    cost: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a variant may serve, and why in one sentence."""

    accepted: bool
    reason: str


def judge(
    source: Candidate, others: Sequence[Candidate], rule: Rule, costs: str, engine: str = ""
) -> Mapping[str, Verdict]:
    """A verdict for each of ``others`` by name. ``costs`` says what cost is, such as ``CPU time``.

    Where everything is for one ``engine``, the source is no rival: one of them has to serve, whatever it takes.
    """
    verdicts: dict[str, Verdict] = {}
    best = source
    for one in sorted(others, key=lambda candidate: (-candidate.cost, candidate.name)):
        problem = lacking(one.quality, rule)
        gain = best.cost / one.cost if one.cost else math.inf
        if problem:
            verdicts[one.name] = Verdict(False, problem)
        elif engine and best is source:
            takes = f"{one.cost / source.cost:.2f} times the {costs} of the source by ONNX Runtime"
            verdicts[one.name] = Verdict(True, f"it is for {engine}, as is asked: {takes}, {_kept(one.quality, rule)}")
            best = one
        elif gain < LEAST_GAIN:
            verdicts[one.name] = Verdict(False, _not_worth_it(best, source, gain, costs))
        else:
            share = source.cost / one.cost if one.cost else math.inf
            verdicts[one.name] = Verdict(True, f"{share:.1f} times less {costs}, {_kept(one.quality, rule)}")
            best = one
    return verdicts


def lacking(found: Quality, rule: Rule) -> str:
    """What the quality lacks by the rule; empty where it keeps it."""
    if found.not_finite:
        return (
            f"{found.not_finite} of {found.samples} answers hold NaN or an infinity where the source's do not: "
            "the recipe overflows; leave the nodes that do in the source's precision"
        )
    if found.out_of_range:
        return f"{found.out_of_range} of {found.samples} answers are far outside of all that the source answers"
    if not found.drop_upper_bound <= rule.max_drop:
        needed = samples_needed(found, rule).overall
        return _lost("", found.drop, found.drop_upper_bound, rule.max_drop, found.samples, needed, rule)
    worst = found.worst_slice
    if rule.max_slice_drop is not None and worst is not None and not worst.drop_upper_bound <= rule.max_slice_drop:
        where = f" where {rule.slice_by} is {worst.name}"
        needed = samples_needed(found, rule).each_slice or 0
        return _lost(where, worst.drop, worst.drop_upper_bound, rule.max_slice_drop, worst.samples, needed, rule)
    return ""


def _or_all(drop: float) -> float:
    """What has no value may be anything."""
    return math.inf if math.isnan(drop) else drop


def _lost(where: str, drop: float, bound: float, most: float, samples: int, needed: int, rule: Rule) -> str:
    if math.isnan(drop) or math.isnan(bound):
        return f"nothing can be said of its drop: the metric has no value on its {samples} samples{where}; give others"
    if drop > most:
        return f"it loses {_told(drop, rule)} on {samples} samples{where}, more than the {_told(most, rule)} allowed"
    there = " there" if where else ""
    more = f"; to show that nothing is lost takes {needed} samples{there}" if samples < needed else ""
    return (
        f"it may lose up to {_told(bound, rule)}{where} (measured: {_told(drop, rule)} on {samples} samples), and "
        f"{_told(most, rule)} are allowed{more}"
    )


def _kept(found: Quality, rule: Rule) -> str:
    most = max(found.drop_upper_bound, 0.0)
    return f"and a loss of at most {_told(most, rule)} at {1 - rule.alpha:.0%} confidence"


def _not_worth_it(best: Candidate, source: Candidate, gain: float, costs: str) -> str:
    than = "the source" if best is source else f"variant {best.name}"
    less = 1 - 1 / gain
    if less < -0.5:
        return f"it takes {1 / gain:.1f} times the {costs} of {than}"
    if less < -0.005:
        return f"it takes {-less:.0%} more {costs} than {than}"
    if less < 0.005:
        return f"it takes as much {costs} as {than}"
    return f"it takes {less:.1%} less {costs} than {than}, and a change is worth it from {1 - 1 / LEAST_GAIN:.1%} on"


def _told(drop: float, rule: Rule) -> str:
    return f"{100 * drop:.2f} points" if rule.has_points else f"{drop:.4g}"


def samples_needed(found: Quality, rule: Rule) -> Needed:
    """How many samples it takes to tell a variant like this one from one that is too bad."""
    sliced = found.slices if rule.max_slice_drop is not None else ()
    power = POWER ** (1 / (1 + len(sliced)))

    def needed(most: float, samples: int, half_width: float) -> int:
        if rule.is_share:
            return intervals.samples_needed(most, found.churn, rule.alpha, power)
        # The half-width shrinks with the square root of the samples, and luck needs room beside it.
        risk, luck = float(stats.norm.isf(rule.alpha)), float(stats.norm.isf(1 - power))
        share = half_width * (1 + luck / risk) / most if most > 0 else math.inf
        return math.ceil(samples * share**2) if math.isfinite(share) else 0

    return Needed(
        needed(rule.max_drop, found.samples, found.drop_upper_bound - found.drop),
        max(needed(rule.max_slice_drop or 0.0, one.samples, one.drop_upper_bound - one.drop) for one in sliced)
        if sliced
        else None,
    )
