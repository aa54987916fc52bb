"""A share of requests, chosen before they come.

Whether each request is one of a share p is a draw a request. How many come before the next one of them is one draw for
all of these, floor(ln U / ln(1 - p)) with U uniform in (0, 1], the geometric distribution: 99 on average for p = 0.01.
Then those that are not chosen cost a subtraction.
"""

from __future__ import annotations

import math
import random


class Share:
    """Which requests are of the share ``p``."""

    def __init__(self, p: float) -> None:
        self._p = p
        self.unheard = self._drawn()
        """How many come before the next one."""

    def passed(self, count: float) -> bool:
        """So many came, at most one more than ``unheard``; whether the last of them is one of the share."""
        self.unheard -= count
        if self.unheard >= 0:
            return False
        self.unheard = self._drawn()
        return True

    def _drawn(self) -> float:
        if self._p <= 0:
            return math.inf
        return 0.0 if self._p >= 1 else math.log(1 - random.random()) // math.log1p(-self._p)
