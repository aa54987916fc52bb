"""Shares of requests, chosen before they come.

Whether each request is one of a share p is a draw a request. How many come before the next one of them is one draw for
all of these, floor(ln U / ln(1 - p)) with U uniform in (0, 1], the geometric distribution: 99 on average for p = 0.01.
Then those that are not chosen cost a subtraction.

What is wanted of two shares is wanted of the same requests, as far as they go: the larger one is chosen, and of a
chosen one each share p' with the chance p' / p. So where lines and traces are sampled alike, each line has its trace.
"""

from __future__ import annotations

import math
import random


class Shares:
    """Which requests are of any of the shares."""

    def __init__(self, *shares: float) -> None:
        self._shares = shares
        self._p = max(shares)

    def unheard(self) -> float:
        """How many come before the next one that is of any share; drawn anew at each call."""
        if self._p <= 0:
            return math.inf
        return 0.0 if self._p >= 1 else math.log(1 - random.random()) // math.log1p(-self._p)

    def of_one(self) -> list[bool]:
        """Of which shares one is that was chosen."""
        drawn = random.random() * self._p
        return [drawn < share for share in self._shares]
