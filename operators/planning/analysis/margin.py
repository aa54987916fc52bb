"""The e-value of one window against "the candidate fails more often, by ``margin`` or more of its requests".

With the chances p (candidate) and q (stable) of a failure the hypothesis is p ≥ q + d. It is convex, so against the
point alternative "both fail with the chance r" the likelihood ratio

    e = B(x; a, r) B(y; b, r) / (B(x; a, p°) B(y; b, q°)),   p° = q° + d,

is an e-value for the q° that is nearest: it minimises a·KL(r‖p) + b·KL(r‖q). Proof: the mean of e under (p, q) is
f(p)^a g(q)^b with linear f and g, so its logarithm is concave; it is 0 at (p°, q°), and its gradient there is minus the
gradient of the divergence, which points out of the hypothesis (R. Turner, A. Ly and P. Grünwald, "Generic E-variables
for exact sequential k-sample tests", 2024). That holds for every r fixed before the window, so r follows what was seen.

Where nothing fails it needs no failures to learn from: 300 good answers of the candidate exclude a margin of 0.01 at
β = 0.05, since each is worth -ln(1 - 0.01). An odds ratio could never be excluded there.
"""

from __future__ import annotations

import math

from operators.planning.analysis.windows import Table


def log_e(table: Table, margin: float, rate: float) -> float:
    """Logarithm of e for one window; ``rate``, between 0 and 1, is the chance of a failure expected of both."""
    if table.candidate == 0:
        return 0.0
    p, q = _nearest(table.candidate, table.stable, margin, rate)
    good = _log_ratio(table.candidate, table.candidate_bad, rate, p)
    return good + _log_ratio(table.stable, table.stable_bad, rate, q)


def _nearest(a: int, b: int, d: float, r: float) -> tuple[float, float]:
    """(p°, q°): where the derivative of the divergence along p = q + d vanishes, by bisection."""
    low, high = max(r - d, 0.0), min(r, 1 - d)
    if high <= low:
        return low + d, low

    def falls(q: float) -> bool:
        p = q + d
        rise = a * (p - r) / (p * (1 - p)) if p < 1 else math.inf
        return rise < (b * (r - q) / (q * (1 - q)) if q > 0 else math.inf)

    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) else (low, middle)
    return low + d, low


def _log_ratio(n: int, x: int, over: float, under: float) -> float:
    total = 0.0
    if x:
        total += x * (math.log(over) - math.log(under))
    if n > x:
        total += (n - x) * (math.log1p(-over) - math.log1p(-under))
    return total
