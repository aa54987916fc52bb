"""The e-value of one window against "the candidate's odds of a bad answer are no higher": the conditional test.

Of n = a + b requests (a to the candidate, b to the stable) k were bad, x of them the candidate's. Given a, b and k,
and the same chance of a bad answer for all of them, x is hypergeometric, whatever that chance is and however it
changes from window to window. With odds ψ times as high it is Fisher's noncentral hypergeometric, so

    e(ψ) = ψ^x / M(ψ),   M(ψ) = E[ψ^X] for the hypergeometric X,

is the likelihood ratio, whose mean is 1 under equal odds and below 1 under lower ones (for ψ > 1; the mirror image
holds for ψ < 1). The product over windows is an e-process. With a = 100, b = 900, k = 1: M(3) = 1 + 0.1·(3 - 1) = 1.2,
so a failure of the candidate makes e = 2.5, one of the stable 0.83.

M is summed from its largest term outwards until what is left out is below 1e-15 of the sum, about nine standard
deviations on both sides: 5,000 bad answers among 100,000 requests are 600 terms. What is left out would only make M
larger, and is bounded by a geometric series and added, so the inequality holds in the safe direction.

Source: M. Lindon and A. Malek, "Anytime-Valid Inference for Multinomial Count Data" (2022) for the use on counters;
Cornfield (1956) for the conditional likelihood.
"""

from __future__ import annotations

import functools
import math

from operators.planning.analysis.windows import Table

_LEFT_OUT = 1e-15


def log_e(table: Table, odds: float) -> float:
    """Logarithm of e(``odds``) for one window; 0 where nothing was bad, all was, or one side got no request."""
    bad = table.candidate_bad + table.stable_bad
    if bad == 0 or table.candidate == 0 or table.stable == 0 or bad == table.candidate + table.stable:
        return 0.0
    return table.candidate_bad * math.log(odds) - _log_mean(table.candidate, table.stable, bad, odds)


@functools.lru_cache(maxsize=1 << 17)
def _log_mean(a: int, b: int, k: int, odds: float) -> float:
    """Logarithm of M(``odds``) for ``k`` bad ones among ``a`` + ``b``."""
    if k == 1:
        return math.log1p(a / (a + b) * (odds - 1))
    low, high = max(0, k - b), min(k, a)
    mode = _mode(a, b, k, odds, low, high)
    log_top = _log_choose(a, mode) + _log_choose(b, k - mode) - _log_choose(a + b, k) + mode * math.log(odds)
    return log_top + math.log(_up(a, b, k, odds, mode, high) + _up(b, a, k, 1 / odds, k - mode, k - low) - 1)


def _up(a: int, b: int, k: int, odds: float, start: int, high: int) -> float:
    """The terms from ``start`` up to ``high``, as multiples of the one at ``start``."""
    term = total = 1.0
    for x in range(start, high):
        ratio = odds * (a - x) * (k - x) / ((x + 1) * (b - k + x + 1))
        term *= ratio
        total += term
        if term < _LEFT_OUT * total * (1 - ratio):
            # Ratios fall, so all further terms together are less than this.
            return total + term * ratio / (1 - ratio)
    return total


def _mode(a: int, b: int, k: int, odds: float, low: int, high: int) -> int:
    """Where ψ^x C(a, x) C(b, k - x) is largest: the root of a quadratic (Liao and Rosen, 2001)."""
    qa = odds - 1
    qb = -((a + k + 2) * odds + b - k)
    qc = odds * (a + 1) * (k + 1)
    root = 2 * qc / (-qb + math.sqrt(max(qb * qb - 4 * qa * qc, 0.0)))
    return min(max(int(root), low), high)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
