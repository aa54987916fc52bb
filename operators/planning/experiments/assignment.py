"""Whether units were assigned in the shares that were asked for: the sample-ratio check, at any time.

Where they were not, something that has to do with the arms decides who is counted (a client that gives up on the slow
arm, a filter, a lost log), and no difference between arms means anything. The Bayes factor of "any other shares",
spread as a Dirichlet distribution around those asked for, against "these shares" is a martingale where these hold, so
it ever reaches 1/α with probability at most α (M. Lindon and A. Malek, "Anytime-valid inference for multinomial count
data", NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONCENTRATION = 1_000.0
"""Of the Dirichlet distribution: skews of a few parts in a hundred are what is looked for."""
ALARM = 1_000.0
"""Bayes factor at which conclusions are blocked: a false alarm in one of a thousand experiments."""


def log_bayes_factor(units: Sequence[int], shares: Sequence[float]) -> float:
    """Natural logarithm of the evidence that ``units`` by arm did not come in ``shares``, which add up to 1.

    Raises ``ValueError`` where an arm without a share has units: that is no matter of chance.
    """
    if any(count and not share for count, share in zip(units, shares, strict=True)):
        raise ValueError(f"units {list(units)} at an arm that gets none of {list(shares)}")
    found = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + sum(units))
    for count, share in zip(units, shares, strict=True):
        if share:
            prior = CONCENTRATION * share
            found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return found


def is_skewed(units: Sequence[int], shares: Sequence[float]) -> bool:
    """Whether nothing may be concluded from these units."""
    return log_bayes_factor(units, shares) >= math.log(ALARM)
