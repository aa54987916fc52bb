"""A rollout played to the planner: its own analysis reads counters every few seconds and says what it would do."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.delivery.traffic import CELLS, Ints, Scenario, Side, Traffic
from operators.api.evidence import Evidence
from operators.api.model import Analysis, MaxLatencyIncrease
from operators.api.plan import FULL_WEIGHT, Arm, Counts, RouteObserved
from operators.planning.analysis import published, verdict, weighing
from operators.planning.analysis.verdict import Decision

_STABLE, _CANDIDATE = "stable", "candidate"
_STARTS = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True)
class Played:
    """What became of one run; times in seconds after the candidate's first traffic, infinite: never."""

    rolled_back_s: float
    promoted_s: float
    predicted_s: float
    """The detection time that was published before."""


def settings(scenario: Scenario) -> Analysis:
    """Defaults; what is not tolerated is what the scenario has, the worst case for a wrong promotion."""
    latency = None if scenario.slower is None else MaxLatencyIncrease(ratio=max(scenario.slower, 1.2))
    increase = 0.01 if scenario.worse is None else scenario.worse - scenario.base
    return Analysis(max_latency_increase=latency, max_error_rate_increase=increase)


def play(scenario: Scenario, traffic: Traffic) -> Played:
    """Look at every tick until it is rolled back or its time is over. A promotion ends nothing, but is noted."""
    asked = settings(scenario)
    looks = _looks(traffic)
    _, seen = next(looks)
    evidence = weighing.begin(seen, _STABLE, _CANDIDATE, asked, _at(-traffic.starts * traffic.tick_s))
    promoted_s, predicted_s = math.inf, math.nan
    for at_s, seen in looks:
        evidence = weighing.weigh(evidence, seen, asked, _at(at_s))
        if at_s <= 0:
            predicted_s = _predicted(scenario, evidence, asked)
            continue
        match verdict.judge(evidence, asked).decision:
            case Decision.ROLL_BACK:
                return Played(at_s, promoted_s, predicted_s)
            case Decision.PROMOTE:
                promoted_s = min(promoted_s, at_s)
            case _:
                pass
    return Played(math.inf, promoted_s, predicted_s)


def _predicted(scenario: Scenario, evidence: Evidence, asked: Analysis) -> float:
    weight = scenario.weight(0.0)
    if scenario.slower is not None:
        found = published.latency_detection_s(evidence, asked, weight)
    else:
        found = published.detection_s(evidence, asked, weight)
    return math.nan if found is None else found


def _at(seconds: float) -> datetime.datetime:
    return _STARTS + datetime.timedelta(seconds=seconds)


def _looks(traffic: Traffic) -> Iterator[tuple[float, RouteObserved]]:
    """What the router tells, and when: while the candidate starts, after each tick, and when shares have changed."""
    stable = _counts(traffic.stable, traffic.history)
    candidate = _counts(traffic.candidate, None)
    share = 0
    seen = {_STABLE: next(stable), _CANDIDATE: next(candidate)}
    yield -traffic.starts * traffic.tick_s, _told(share, seen)
    for tick, next_share in enumerate(traffic.shares):
        began_s = (tick - traffic.starts) * traffic.tick_s
        if next_share != share:
            share = next_share
            yield began_s, _told(share, seen)
        seen = {_STABLE: next(stable), _CANDIDATE: next(candidate)}
        yield began_s + traffic.tick_s, _told(share, seen)


def _told(share: int, counts: Mapping[str, Counts]) -> RouteObserved:
    arms = Arm(_STABLE, "a", "default", FULL_WEIGHT - share), Arm(_CANDIDATE, "b", "default", share)
    return RouteObserved(arms, counts={"router": counts})


def _counts(side: Side, before: Side | None) -> Iterator[Counts]:
    """What one router has counted of one workload, before the first tick and after each."""
    answered, failed, latency = (
        np.cumsum(np.concatenate([np.zeros_like(now[:1]) if then is None else then, now]), axis=0)
        for now, then in zip(_parts(side), _parts(before) if before else (None,) * 3, strict=True)
    )
    all_latency = latency.sum(axis=1).tolist()
    for tick, (n, x, cells) in enumerate(zip(answered.tolist(), failed.tolist(), latency.tolist(), strict=True)):
        servers = dict(zip(_NAMES, zip(n, x, strict=True), strict=False))
        told = dict(zip(_NAMES, map(_by_cell, cells), strict=False)) if latency.size else {}
        yield Counts(sum(n), sum(x), _by_cell(all_latency[tick]), servers, told)


def _parts(side: Side) -> tuple[Ints, Ints, Ints]:
    return side.answered, side.failed, side.latency


def _by_cell(counts: Sequence[int]) -> dict[int, int]:
    return dict(zip(CELLS, counts, strict=False)) if counts else {}


_NAMES = tuple(f"10.0.0.{pod:02}" for pod in range(100))
