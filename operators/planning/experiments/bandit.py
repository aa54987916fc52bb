"""Shares of arms that follow their rewards: Thompson sampling, held back so that every arm goes on being learned about.

An arm's target is the chance that it is the best by what is known of it (Beta for rewards that are 0 or 1, normal for
others), mixed with an equal share for each (S. Liang and I. Bojinov, "An experimental design for anytime-valid causal
inference on multi-armed bandits", 2023): that bounds shares from below, and so the weights of what an arm with a small
share is told by. Shares move to their targets by at most ``STEP`` at a time, and all in proportion, so that they add up
at every step.

Where shares follow outcomes, an arm's plain mean is biased, so each unit is weighted by one over the share w that its
arm had when it came (``weighted``). With m the weighted mean of an arm and N the units of all arms, the difference of
two arms' m has the variance of a mean of N terms (y - m) / w, zero for a unit of another arm: what rewards have in
common costs no precision (the estimator is that of J. Hájek, 1971, its terms those of augmented inverse-propensity
weighting with a constant for each arm).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from operators.api.outcomes import Sums
from operators.planning.experiments import effect

EXPLORE = 0.2
"""Of all units, those that are shared out equally."""
STEP = 0.1
"""The most a share may change at a time."""
KEPT = 0.99
"""What an interval's units still count an interval later, so that a change of the world is followed."""
_DRAWS = 500


def shares(arms: Sequence[Sums], before: Sequence[float], *, binary: bool, seed: int) -> tuple[float, ...]:
    """The next shares, which add up to 1. ``before`` are those of now; an arm whose share is 0 stays out.

    ``seed`` decides the draws, so that the same call gives the same shares; the caller moves it on.
    """
    chance = random.Random(seed)
    playing = [place for place, share in enumerate(before) if share > 0]
    wins = dict.fromkeys(playing, 0)
    for _ in range(_DRAWS):
        drawn = {place: _draw(arms[place], binary, chance) for place in playing}
        wins[max(playing, key=lambda place: drawn[place])] += 1
    floor = EXPLORE / len(playing)
    target = [(1 - EXPLORE) * wins[place] / _DRAWS + floor if place in wins else 0.0 for place in range(len(before))]
    furthest = max(abs(new - old) for new, old in zip(target, before, strict=True))
    pace = min(1.0, STEP / furthest) if furthest else 1.0
    return tuple(old + pace * (new - old) for new, old in zip(target, before, strict=True))


def without(before: Sequence[float], harmful: int) -> tuple[float, ...]:
    """``before`` after the arm ``harmful`` was taken out, its share gone to the others in proportion."""
    left = 1 - before[harmful]
    if left <= 0:
        raise ValueError(f"arm {harmful} has all of {list(before)}; there is no other to take its share")
    return tuple(0.0 if place == harmful else share / left for place, share in enumerate(before))


def weighted(arm: Sums, share: float) -> Sums:
    """Units that an arm got in an interval with ``share``, each weighted by 1 / ``share``, with the weight as x.

    ``n`` stays as it is. Intervals are added up, and the units of all arms over all intervals are what ``difference``
    divides by.
    """
    return Sums(arm.n, arm.y / share, arm.yy / share**2, arm.n / share, arm.n / share**2, arm.y / share**2)


def difference(control: Sums, treatment: Sums, units: float, alpha: float) -> effect.Effect | None:
    """By how much ``treatment`` is worth more than ``control``, both ``weighted``, of ``units`` assigned to any arm.

    Holds whatever the shares did, as long as none was zero. None below ``effect.ENOUGH`` units of either.
    """
    if min(control.n, treatment.n) < effect.ENOUGH:
        return None
    value = treatment.y / treatment.x - control.y / control.x
    squares = sum(arm.yy - 2 * arm.xy * arm.y / arm.x + arm.xx * (arm.y / arm.x) ** 2 for arm in (control, treatment))
    half = effect.half_width(math.sqrt(max(squares, 0.0) / units), units, alpha)
    return effect.Effect(value, value - half, value + half)


def imbalance(control: Sums, treatment: Sums, units: float, alpha: float) -> effect.Effect | None:
    """By how much more of ``treatment`` there is than of ``control``, for the shares they had; 0 where none is lost.

    Both ``weighted``; a unit counts one over its arm's share, which is one on average for every arm.
    """
    if min(control.n, treatment.n) < effect.ENOUGH:
        return None
    value = (treatment.x - control.x) / units
    sigma = math.sqrt(max((treatment.xx + control.xx) / units - value**2, 0.0))
    half = effect.half_width(sigma, units, alpha)
    return effect.Effect(value, value - half, value + half)


def _draw(arm: Sums, binary: bool, chance: random.Random) -> float:
    if binary:
        return chance.betavariate(1 + arm.y, 1 + max(arm.n - arm.y, 0.0))
    if arm.n < 2:
        return chance.gauss(0.0, 1e6)
    return chance.gauss(arm.mean, math.sqrt(arm.variance() / arm.n))
