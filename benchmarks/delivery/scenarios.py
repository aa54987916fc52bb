"""The rollouts that are played: candidates as good as the stable revision, and worse ones.

Good ones are looked at for an hour, every 30 s (latency: every 60 s, which is as good a test and quicker); worse ones
for 20 minutes, every 5 s, as the operator does.
"""

from __future__ import annotations

import functools

from benchmarks.delivery.traffic import Scenario, Stalls


def _steps(at_s: float) -> float:
    """Up to a half and down again."""
    return (0.05, 0.1, 0.25, 0.5, 0.25)[int(at_s // 600) % 5]


def _at(share: float, at_s: float) -> float:
    return share


_null = functools.partial(Scenario, kind="null", tick_s=30)
_shift = functools.partial(Scenario, kind="shift", tick_s=5, seconds=1200)
_MANY = (27, 3)

SCENARIOS = (
    _null("steady, 0.1 % fail"),
    _null("steady, 1 % fail, 10/s", base=0.01, rate=10.0),
    _null("drifting base rate", base=0.01, drift=0.7),
    _null("changing weights and base rate", base=0.005, drift=0.3, weight=_steps),
    _null("bursts: outages behind both", base=0.002, outages=0.02),
    _null("bursts: requests fail by twos", base=0.002, cluster=2),
    _null("bursts: requests fail by tens", base=0.002, cluster=10),
    _null("stalls, 1 of 10 pods", stalls=Stalls()),
    _null("stalls, 3 of 30 pods", stalls=Stalls(), pods=_MANY, rate=300.0),
    _null("stalls, 1 of 10 pods, 1 % fail", base=0.01, stalls=Stalls()),
    _null("latency, steady", slower=1.0, rate=50.0, tick_s=60),
    _null("latency, stalls, 1 of 10 pods", slower=1.0, rate=50.0, tick_s=60, stalls=Stalls()),
    _shift("0.1 → 1 %", worse=0.01),
    _shift("0.1 → 1 %, weight 5 %", worse=0.01, weight=functools.partial(_at, 0.05)),
    _shift("0.1 → 5 %", worse=0.05),
    _shift("1 → 3 %", base=0.01, worse=0.03),
    _shift("0.1 → 1 %, 20/s", worse=0.01, rate=20.0),
    _shift("0.1 → 0.5 %, weight 50 %", worse=0.005, weight=functools.partial(_at, 0.5)),
    _shift("0.1 → 5 %, stalls, 3 of 30 pods", worse=0.05, stalls=Stalls(), pods=_MANY, rate=300.0),
    _shift("latency × 1.25", slower=1.25, rate=50.0),
    _shift("latency × 1.5", slower=1.5, rate=50.0),
)
