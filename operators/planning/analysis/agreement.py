"""The e-value against "the candidate disagrees with the stable revision on at most a share m of mirrored requests".

With the chance q of a disagreement, d of n mirrored requests have the likelihood ratio against m

    e(q) = (q / m)^d ((1 - q) / (1 - m))^(n - d).

Given whatever came before, its mean over one more request with the true chance p is linear in p and 1 at p = m; for
q > m it rises with p, so it is at most 1 for every p ≤ m, and for q < m for every p ≥ m. So the product over requests
is an e-process against the one for q above m, and against the other for q below it. It needs no requests of the stable
revision beside, since both have answered the same ones. q is written as its odds' ratio to those of m: with m = 0.02
and a ratio of 30 q is 0.38, and the third disagreement in a row makes e = 6,800.

It says as much as the requests are different from each other: a client that sends one request over and over is one that
is right or wrong over and over.
"""

from __future__ import annotations

import math


def log_e(compared: float, disagreed: float, allowed: float, odds: float) -> float:
    """Logarithm of e for ``disagreed`` of ``compared`` requests; ``allowed`` is m, ``odds`` the ratio of odds."""
    other = odds * allowed / (1 - allowed + odds * allowed)
    good = math.log1p(-other) - math.log1p(-allowed)
    return disagreed * (math.log(other) - math.log(allowed)) + (compared - disagreed) * good
