"""How much more the stable's own counts scatter than independent requests would: the design effect.

A pod that stalls fails many requests at once, and a test that takes each of them for a piece of evidence by itself
finds differences between equals. How bad that is shows where nothing can differ: between the servers of the stable
revision. In a window Pearson's statistic over its servers, Σ (xᵢ - nᵢp)² / (nᵢ p (1 - p)) with p their common rate,
is expected to be the number of servers less one where requests are independent, and f times that where they fail in
clusters of f. Windows are added up with their bad answers as weights, so that one stall among many quiet windows
counts by what it failed. Windows of 1, 2, 4, 8 … ticks are looked at, since what is correlated over a minute shows
little of it in ten seconds; so is what was counted before the rollout, one long window.

Logarithms of e-values are then divided. For independent requests that keeps them e-values for any divisor F ≥ 1 that
was known before the window (Jensen: E[e^(1/F)] ≤ E[e]^(1/F)). For clusters of f requests each, F = f makes it the
exact test on clusters. But what lasts a random time fails random numbers of requests, and large clusters weigh more
the larger the odds ψ that are bet on. Where sizes are exponential with mean m, so that f = 2m,
E[ψ^(S/F)] - 1 ≤ (ψ - 1) m / F asks for F ≥ c f with c = ln ψ (ψ - 1) / (2 (ψ - 1 - ln ψ)), which is 1.07 for ψ = 1.5
and 1.9 for ψ = 30: ``divisor``. That is a model, not a proof; `benchmarks delivery` holds it against the promise.

The same is done for slow answers at each edge, and the largest f of all of these counts for all. For the size of the
clusters is what matters, and f tells it only where most bad answers come in clusters: a pod that stalls shows in its
failures, and hardly among the answers above the median, where a test would take it for a shift all the same. A stable
of one server is compared with itself, one window with the next: f then contains any drift that both revisions share,
so it is too large rather than too small. For what an hour of few stalls does not show, f - 1 is taken half as large
again (``_MARGIN``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from operators.api.evidence import Level, Scatter

LEVELS = 5
"""Windows of 1, 2, 4, 8 and 16 ticks."""
_MARGIN = 1.5
_PRIOR = 12.0
"""Bad answers that every length begins with, scattered as if independent: a first window decides little."""


def scatters(servers: Sequence[Sequence[int]]) -> tuple[Scatter, ...]:
    """Of failures and of slow answers by edge, from each server's counters: answered, failed, answered well, slow ….

    Zeros where they say nothing.
    """
    if not servers:
        return ()
    columns = [(0, 1), *((2, place) for place in range(3, len(servers[0])))]
    return tuple(_scatter([(one[n], one[x]) for one in servers]) for n, x in columns)


def _scatter(groups: Sequence[tuple[int, int]]) -> Scatter:
    used = [(n, x) for n, x in groups if n > 0]
    total, bad = sum(n for n, _ in used), sum(x for _, x in used)
    if len(used) < 2 or bad == 0 or bad == total:
        return _NOTHING
    p, freedom = bad / total, len(used) - 1
    scale, weight = p * (1 - p), bad * (1 - p)
    ratio = sum((x - n * p) ** 2 / (n * scale) for n, x in used) / freedom
    by_chance = 2 / freedom
    return Scatter(
        bad=weight,
        seen=weight * ratio,
        squared=weight * (ratio * ratio - by_chance),
        variance=weight * weight * by_chance,
    )


_NOTHING = Scatter()


def added(first: Sequence[Scatter], second: Sequence[Scatter]) -> tuple[Scatter, ...]:
    """Both together, place by place."""
    return tuple(
        Scatter(
            bad=round(one.bad + other.bad, 1),
            seen=round(one.seen + other.seen, 1),
            squared=round(one.squared + other.squared, 1),
            variance=round(one.variance + other.variance, 1),
        )
        for one, other in zip(first, second, strict=True)
    )


def effect(scatters: Iterable[Scatter]) -> float:
    """The design effect: the largest of two ratios less their standard errors, over all ``scatters``; 1 at least.

    Over all windows it is what was seen beside what independent requests give. Where only some windows have clusters it
    is what was seen in these: each window counts once more by what was seen in it. Without the errors nine servers that
    differ by chance alone would be taken for clusters of 1.3 half of the time, and every rollout would take that much
    longer.
    """
    found = [1.0]
    for one in scatters:
        error = math.sqrt(one.variance)
        found.append((one.seen + _PRIOR - error) / (one.bad + _PRIOR))
        found.append((one.squared + _PRIOR - 3 * error) / (one.seen + _PRIOR))
    return max(found)


def divisor(effect: float, odds: float = 1.0) -> float:
    """What the logarithm of an e-value for ``odds`` is divided by: 1 without any design effect."""
    log, more = math.log(odds), odds - 1
    heavier = log * more / (2 * (more - log)) if more > 0 else 1.0
    return 1 + (effect - 1) * _MARGIN * heavier


def fresh() -> tuple[Level, ...]:
    """Nothing counted yet."""
    return (Level(),) * LEVELS


def counted(levels: Sequence[Level], servers: tuple[tuple[int, ...], ...]) -> tuple[Level, ...]:
    """``levels`` after one more tick, in which the stable's ``servers`` counted so much.

    Lengths double, so a window of one length is two of the length before: the first waits for the second, as digits of
    a binary counter do.
    """
    found = list(levels)
    for place, level in enumerate(found):
        told = scatters(servers)
        known = added(level.scatters, told) if level.scatters else told
        if not level.servers:
            found[place] = Level(scatters=known, servers=servers)
            break
        if len(servers) == 1:
            known = added(known, scatters((*level.servers, *servers)))
        found[place] = Level(scatters=known)
        pairs = zip(level.servers, servers, strict=True)
        servers = tuple(tuple(a + b for a, b in zip(one, other, strict=True)) for one, other in pairs)
    return tuple(found)


def unpaired(levels: Sequence[Level]) -> tuple[Level, ...]:
    """``levels`` where the servers are others now, or a tick is missing: halves that wait have no second."""
    return tuple(level.model_copy(update={"servers": ()}) for level in levels)
