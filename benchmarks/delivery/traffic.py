"""Traffic of two revisions as the router would have counted it: what happens to requests, and to whom."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from operators.api import plan

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Stalls:
    """Each pod by itself stops well for a while now and then, and fails a share of its requests meanwhile."""

    every_s: float = 1200.0
    lasts_s: float = 20.0
    fails: float = 0.2


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is true of a rollout."""

    name: str
    kind: Literal["null", "shift"]
    rate: float = 100.0
    """Requests a second."""
    base: float = 0.001
    """Chance of a failure, of the stable revision."""
    worse: float | None = None
    """The same of the candidate; None: as the stable."""
    weight: Callable[[float], float] = lambda at_s: 0.1
    """The candidate's share of the traffic after so many seconds."""
    pods: tuple[int, int] = (9, 1)
    """Of the stable and of the candidate."""
    drift: float = 0.0
    """Standard deviation of the logarithm of the base rate, which jumps every tick for both."""
    outages: float = 0.0
    """Chance that a tick is one in which something behind both fails: 30 times the base rate."""
    cluster: int = 1
    """Requests that fail together, such as those of one client that asks for nonsense."""
    stalls: Stalls | None = None
    slower: float | None = None
    """Latency of the candidate over the stable's; None: latency is not judged."""
    tick_s: int = 10
    """How often the counters are read."""
    seconds: int = 3600
    """How long the candidate is looked at."""
    starts_s: int = 60
    """How long the candidate's replicas take to start, while the stable is looked at."""
    history_s: int = 3600
    """For how long the stable was counted before that."""


@dataclasses.dataclass(frozen=True)
class Side:
    """Counts of one revision by tick and pod: requests, failures, and good answers by cell of latency."""

    answered: Ints
    failed: Ints
    latency: Ints


@dataclasses.dataclass(frozen=True)
class Traffic:
    """One rollout, and before it the stable alone."""

    history: Side
    """All of it in one row."""
    stable: Side
    candidate: Side
    shares: tuple[int, ...]
    """The candidate's in each tick, in 0.01 %."""
    starts: int
    """Ticks at the beginning in which it has none."""
    tick_s: int


CELLS = tuple(edge for edge in plan.CELLS if 4_000 <= edge < 2_000_000)
_MEDIAN_S, _SIGMA, _STALLED_S = 0.04, 0.8, 0.3


def draw(scenario: Scenario, random: np.random.Generator) -> Traffic:
    """One run of it."""
    starts, before = scenario.starts_s // scenario.tick_s, scenario.history_s // scenario.tick_s
    ticks = starts + scenario.seconds // scenario.tick_s
    level = np.exp(random.normal(0.0, scenario.drift, ticks)) if scenario.drift else np.ones(ticks)
    if scenario.outages:
        level = np.where(random.random(ticks) < scenario.outages, 30.0, level)
    weights = np.array(
        [scenario.weight(tick * scenario.tick_s) if tick >= 0 else 0.0 for tick in range(-starts, ticks - starts)]
    )
    worse = scenario.base if scenario.worse is None else scenario.worse
    stable, candidate = scenario.pods
    history = _side(scenario, random, np.ones(before), np.ones(before), scenario.base, stable, 1.0)
    return Traffic(
        history=Side(*(one.sum(axis=0, keepdims=True) for one in dataclasses.astuple(history))),
        stable=_side(scenario, random, 1 - weights, level, scenario.base, stable, 1.0),
        candidate=_side(scenario, random, weights, level, worse, candidate, scenario.slower or 1.0),
        shares=tuple(round(weight * plan.FULL_WEIGHT) for weight in weights),
        starts=starts,
        tick_s=scenario.tick_s,
    )


def _side(
    scenario: Scenario, random: np.random.Generator, share: Floats, level: Floats, rate: float, pods: int, slower: float
) -> Side:
    answered = random.poisson(np.repeat(scenario.rate * scenario.tick_s * share[:, None] / pods, pods, axis=1))
    chance = np.repeat(np.minimum(rate * level, 1.0)[:, None], pods, axis=1)
    stalled = _stalled(scenario, random, *answered.shape)
    if scenario.stalls is not None:
        chance = chance + stalled * (scenario.stalls.fails - chance)
    groups = answered // scenario.cluster
    failed = random.binomial(groups, chance) * scenario.cluster
    return Side(answered, failed, _latency(scenario, random, answered - failed, stalled, slower))


def _stalled(scenario: Scenario, random: np.random.Generator, ticks: int, pods: int) -> Floats:
    """The share of each tick for which each pod was stalled."""
    found, stalls, tick_s = np.zeros((ticks, pods)), scenario.stalls, scenario.tick_s
    if stalls is None:
        return found
    for pod in range(pods):
        at = random.exponential(stalls.every_s)
        while at < ticks * tick_s:
            end = at + random.exponential(stalls.lasts_s)
            for tick in range(int(at // tick_s), min(ticks - 1, int(end // tick_s)) + 1):
                found[tick, pod] += (min(end, (tick + 1) * tick_s) - max(at, tick * tick_s)) / tick_s
            at = end + random.exponential(stalls.every_s)
    return np.minimum(found, 1.0)


def _latency(scenario: Scenario, random: np.random.Generator, well: Ints, stalled: Floats, slower: float) -> Ints:
    """Lognormal with a median of 40 ms; a fifth of what a stalled pod answers takes 300 ms longer."""
    if scenario.slower is None:
        return np.zeros((*well.shape, 0), np.int64)
    late = (stalled * 0.2)[:, :, None]
    chances = (1 - late) * _cells(slower, 0.0) + late * _cells(slower, _STALLED_S)
    return random.multinomial(well, chances / chances.sum(axis=2, keepdims=True))


def _cells(slower: float, added_s: float) -> Floats:
    bounds = [0.0, *(edge / 1e6 for edge in CELLS[1:]), math.inf]
    below = [_below(bound / slower - added_s) for bound in bounds]
    return np.diff(np.array(below))


def _below(latency_s: float) -> float:
    if latency_s <= 0:
        return 0.0
    return 1.0 if latency_s == math.inf else 0.5 * math.erfc(-math.log(latency_s / _MEDIAN_S) / (_SIGMA * math.sqrt(2)))
