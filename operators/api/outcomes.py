"""Outcomes that clients report, as sums: what is kept of an arm's units can be added up over routers and over time.

A router tells ``{SOURCE: [EXPERIMENT, {ARM: [sums of the units, sums of the weighted units]}]}``. A source is one
process that counts; its sums begin at zero with it and only grow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field, StringConstraints, TypeAdapter

from operators.api.base import Name


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


@dataclasses.dataclass(frozen=True)
class Tally:
    """What is kept of the units of one arm, as they came and weighted."""

    units: Sums = Sums()
    weighted: Sums = Sums()
    """With y over the share that the arm had when the unit was assigned, and x one over that share: sums of these are
    right on average whatever the shares did, and those of x tell whether units came in the shares that were asked for.
    """

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.units + other.units, self.weighted + other.weighted)

    def since(self, before: Tally) -> Tally:
        """What was added to ``before``."""
        return Tally(self.units + before.units.times(-1), self.weighted + before.weighted.times(-1))

    def times(self, share: float) -> Tally:
        """What is left of these units when each counts ``share`` of one."""
        return Tally(self.units.times(share), self.weighted.times(share))

    @staticmethod
    def of(y: float, x: float, share: float) -> Tally:
        """One unit of an arm that had ``share``, in (0, 1], of all."""
        return Tally(Sums.of(y, x), Sums.of(y / share, 1 / share))

    def flat(self) -> tuple[float, ...]:
        """As status and reports hold it."""
        return (*dataclasses.astuple(self.units), *dataclasses.astuple(self.weighted))

    @staticmethod
    def read(flat: tuple[float, ...]) -> Tally:
        """From ``flat``."""
        return Tally(Sums(*flat[:6]), Sums(*flat[6:]))


@dataclasses.dataclass(frozen=True)
class Told:
    """What one source has counted of one experiment."""

    experiment: str
    arms: Mapping[str, Tally]


_Number = Annotated[float, Field(allow_inf_nan=False)]
Flat = Annotated[tuple[_Number, ...], Field(min_length=12, max_length=12)]
"""A ``Tally``, see ``Tally.flat``."""
_Source = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z@-]{1,40}$")]
_Tag = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}$")]
_Arms = Annotated[dict[Name, Flat], Field(max_length=16)]
_TOLD: TypeAdapter[dict[str, tuple[str, dict[str, tuple[float, ...]]]]] = TypeAdapter(dict[_Source, tuple[_Tag, _Arms]])


def told(sources: Mapping[str, Told]) -> dict[str, Any]:
    """``sources`` as values of JSON."""
    return {
        source: [of.experiment, {arm: list(tally.flat()) for arm, tally in of.arms.items()}]
        for source, of in sources.items()
    }


def read(said: object, router: str) -> dict[str, Told]:
    """By source, as ``told`` by ``router``; empty if that is not what is ``said``.

    A source is named after its router, so that none can speak for another.
    """
    try:
        sources = _TOLD.validate_python(said)
    except pydantic.ValidationError:
        return {}
    return {
        f"{router}/{source}": Told(experiment, {arm: Tally.read(flat) for arm, flat in arms.items()})
        for source, (experiment, arms) in sources.items()
    }
