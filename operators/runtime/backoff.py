"""Waiting longer after each failure: ``min(cap, first * 2**n)``, of which a random half to all is waited.

With first 0.5 s and cap 30 s the waits are at most 0.5, 1, 2, 4, 8, 16, 30, 30 … s. The randomness keeps
clients that failed together from coming back together.
"""

from __future__ import annotations

import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class Backoff:
    """How long to wait after the ``failures``-th failure in a row (from 1)."""

    first_s: float
    cap_s: float
    random: random.Random

    def delay_s(self, failures: int) -> float:
        """Seconds between half of the full wait and all of it."""
        exponent = min(failures - 1, 60)
        return min(self.cap_s, self.first_s * 2.0**exponent) * self.random.uniform(0.5, 1.0)
