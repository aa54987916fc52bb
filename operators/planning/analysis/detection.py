"""How long it takes to find a candidate that is worse: published before the rollout, from the stable's own traffic.

With R requests a second of which the share w goes to the candidate, chances q (stable) and p (candidate) of a bad
answer, an alternative ψ is expected to gain per request

    g(ψ) = w p ln ψ - m(ψ),

m being ln E[ψ^X] of the conditional test (``odds``) per request in a long window. With bad answers rare and ψ the true
ratio this is λ KL(θ‖w) / R, λ = R (w p + (1 - w) q), θ = w p / (w p + (1 - w) q), the formula of the literature. The
evidence is a mean over J alternatives, so the time is where Σ exp(R g(ψⱼ) t / f) / J = 1/α, f being the design effect:
about f (ln 1/α + ln J) / (λ KL(θ‖w)), less where several alternatives gain.

It is found when the window is over in which that happens. Evidence comes in lumps, of which the last one goes past the
threshold, and the median of such a first passage lies before its mean: these two are of one size, and left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def gain(weight: float, stable_bad: float, candidate_bad: float, odds: float) -> float:
    """g(``odds``): what a request is expected to add to the logarithm, for shares ``weight``, q and p in [0, 1]."""
    bad = weight * candidate_bad + (1 - weight) * stable_bad
    if not 0 < bad < 1 or not 0 < weight < 1:
        return 0.0
    return weight * candidate_bad * math.log(odds) - _log_mean(weight, bad, odds)


def median_s(gains_per_s: Sequence[float], threshold: float, window_s: float) -> float | None:
    """About half of all rollouts find it before this; None where no alternative gains."""
    found = time_s(gains_per_s, threshold)
    return None if found is None else math.ceil(found / window_s) * window_s


def time_s(gains_per_s: Sequence[float], threshold: float) -> float | None:
    """When the mean of exp(gain·t) reaches ``threshold``; None where no alternative gains."""
    best = max(gains_per_s)
    if best <= 0:
        return None
    low, high = 0.0, (math.log(threshold) + math.log(len(gains_per_s))) / best
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum(math.exp(min(gain * middle, 700.0)) for gain in gains_per_s) / len(gains_per_s)
        low, high = (low, middle) if mean >= threshold else (middle, high)
    return high


def _log_mean(w: float, k: float, odds: float) -> float:
    """Logarithm of E[ψ^X] per request for the share ``k`` of bad ones: the largest term, with Stirling's formula."""
    qa, qb, qc = odds - 1, -((w + k) * odds + 1 - w - k), odds * w * k
    x = 2 * qc / (-qb + math.sqrt(qb * qb - 4 * qa * qc))
    entropy = w * _entropy(x / w) + (1 - w) * _entropy((k - x) / (1 - w)) - _entropy(k)
    return entropy + x * math.log(odds)


def _entropy(p: float) -> float:
    p = min(max(p, 0.0), 1.0)
    return -sum(one * math.log(one) for one in (p, 1 - p) if one > 0)
