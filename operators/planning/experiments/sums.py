"""What is kept of an arm's units: sums, which can be added up over routers and over time."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sums:
    """Of the outcome y of each unit, and of what was known of it beforehand, x (0 where nothing was)."""

    n: float = 0
    """Units."""
    y: float = 0
    yy: float = 0
    x: float = 0
    xx: float = 0
    xy: float = 0

    def __add__(self, other: Sums) -> Sums:
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Sums(*(a + b for a, b in zip(mine, others, strict=True)))

    def times(self, share: float) -> Sums:
        """What is left of these units when each counts ``share`` of one."""
        return Sums(*(share * one for one in dataclasses.astuple(self)))

    @staticmethod
    def of(y: float, x: float = 0.0) -> Sums:
        """One unit."""
        return Sums(1, y, y * y, x, x * x, x * y)

    @property
    def mean(self) -> float:
        """Of y; needs a unit."""
        return self.y / self.n

    def variance(self, theta: float = 0.0) -> float:
        """Of y - ``theta`` x, as of a sample; needs two units."""
        squares = self.yy - 2 * theta * self.xy + theta**2 * self.xx
        total = self.y - theta * self.x
        return max(squares - total**2 / self.n, 0.0) / (self.n - 1)
