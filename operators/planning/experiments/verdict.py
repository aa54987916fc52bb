"""What the outcomes say by now: of each arm beside the first one, and in one sentence with its numbers.

With several arms beside the first each has its part of alpha, so that all intervals together miss the truth with the
probability alpha at most. Where shares follow the outcomes, units are weighted by one over the share that their arm had
when they came: that makes the effect right, and one over the share, which is one on average for every arm, takes the
place of the sample ratio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from operators.api.endpoint import Experiment
from operators.api.experiment import ArmStatus, EffectStatus
from operators.api.outcomes import Tally
from operators.api.plan import FULL_WEIGHT
from operators.planning.experiments import assignment, bandit
from operators.planning.experiments.effect import Effect, effect

_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of the arms by now."""

    state: Literal["Running", "Found", "Blocked"]
    sentence: str
    arms: tuple[ArmStatus, ...]


def judge(arms: Sequence[ArmStatus], tallies: Sequence[Tally], settings: Experiment, follows: bool) -> Verdict:
    """Of ``arms`` with what each has come to; ``follows``: shares follow the outcomes."""
    skew = _skew(arms, tallies, follows)
    told = tuple(
        arm.model_copy(
            update={
                "units": round(tally.units.n),
                "mean": _rounded(tally.weighted.y / tally.weighted.x) if tally.units.n else None,
                "effect": arm.effect if arm.out else None,
            }
        )
        for arm, tally in zip(arms, tallies, strict=True)
    )
    if skew:
        return Verdict(
            "Blocked", f"the sample ratio is off: {skew}; no conclusion, find out whose outcomes are lost", told
        )
    units, alpha = sum(tally.units.n for tally in tallies), settings.alpha / (len(arms) - 1)
    told = tuple(
        arm
        if not place or arm.out
        else arm.model_copy(update={"effect": _effect(tallies, place, units, alpha, follows)})
        for place, arm in enumerate(told)
    )
    found = any(_is_found(arm.effect) for arm in told)
    said = "; ".join(_said(arm, told[0]) for arm in told[1:])
    return Verdict("Found" if found else "Running", said, told)


def is_binary(tallies: Sequence[Tally]) -> bool:
    """Whether every outcome was 0 or 1: no other numbers between these are their own squares."""
    return all(tally.units.y == tally.units.yy and 0 <= tally.units.y <= tally.units.n for tally in tallies)


def _effect(tallies: Sequence[Tally], place: int, units: float, alpha: float, follows: bool) -> EffectStatus | None:
    first, other = tallies[0], tallies[place]
    found: Effect | None
    if follows:
        found = bandit.difference(first.weighted, other.weighted, units, alpha)
    else:
        found = effect(first.units, other.units, alpha)
    if found is None:
        return None
    return EffectStatus(value=_rounded(found.value), low=_rounded(found.low), high=_rounded(found.high))


def _skew(arms: Sequence[ArmStatus], tallies: Sequence[Tally], follows: bool) -> str:
    """How units came otherwise than in the shares that were asked for; empty where they did not."""
    if not follows:
        units, shares = [round(tally.units.n) for tally in tallies], [arm.weight / FULL_WEIGHT for arm in arms]
        if not assignment.is_skewed(units, shares):
            return ""
        total = sum(units)
        worst = max(range(len(arms)), key=lambda place: abs(units[place] - total * shares[place]))
        expected = total * shares[worst]
        return f"{units[worst]:,} of {total:,} outcomes are of {arms[worst].name} where {expected:,.0f} were expected"
    total = round(sum(tally.units.n for tally in tallies))
    first, *others = (tally.weighted for tally in tallies)
    for arm, own in zip(arms[1:], others, strict=True):
        found = None if arm.out else bandit.imbalance(first, own, total, 1 / assignment.ALARM / (len(arms) - 1))
        if found is not None and found.is_found:
            times = own.x / first.x
            return f"of {arm.name} there are {times:.3g} times as many as of {arms[0].name} for the shares they had"
    return ""


def _is_found(seen: EffectStatus | None) -> bool:
    return seen is not None and (seen.low > 0 or seen.high < 0)


def _said(arm: ArmStatus, first: ArmStatus) -> str:
    seen = arm.effect
    if seen is None:
        return f"too few outcomes of {arm.name} or {first.name} to say anything"
    if seen.low > 0:
        return f"{arm.name} is better than {first.name} by {seen.value:.3g} ({seen.low:.3g} to {seen.high:.3g})"
    if seen.high < 0:
        return f"{arm.name} is worse than {first.name} by {-seen.value:.3g} ({-seen.high:.3g} to {-seen.low:.3g})"
    return (
        f"no difference between {arm.name} and {first.name} is found yet: "
        f"{seen.value:+.3g} ({seen.low:+.3g} to {seen.high:+.3g})"
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
