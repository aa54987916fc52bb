"""How many replicas each revision has while traffic moves by steps.

With N = ``spec.replicas``, surge S and unavailable U (a Deployment's words, with a Deployment's meaning) there are at
most N + S replicas, and of the two revisions that traffic moves between at least **N - U ready replicas stay: the
capacity floor**. Where there is room beside N replicas nothing shrinks before the traffic has left. Where there is
none, such as in a full pool of accelerators, the revision that gives traffic away shrinks first, as far as the floor
and the traffic it still has allow: to max(N - U - ready replicas of the other, ceil(its share * N) - U). The
other one grows into what became free, gets as much of the traffic as its ready replicas can carry, and so on. Since
S + U is at least 1 each round moves at least one replica, so it never deadlocks. With N = 1, S = 0 and U = 1 the floor
is 0: what serves stops before the next one starts, as with a Deployment.

A rollback does not wait for replicas: where the stable revision has shrunk, it gets all traffic with those it has left,
and grows back into the room of the other one, which keeps its own until the router is done with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from operators.api.model import Rollout
from operators.api.plan import FULL_WEIGHT


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What the replicas of a Model are held within."""

    replicas: int
    surge: int
    unavailable: int

    @property
    def room(self) -> int:
        """Most replicas of all revisions together."""
        return self.replicas + self.surge

    @property
    def floor(self) -> int:
        """Fewest ready replicas of those that traffic moves between."""
        return self.replicas - self.unavailable

    def needed(self, weight: int) -> int:
        """Replicas that carry ``weight``: that share of all, at least 1."""
        return max(1, -(-weight * self.replicas // FULL_WEIGHT))

    def carried(self, ready: int) -> int:
        """The greatest weight that ``ready`` replicas can carry."""
        return min(FULL_WEIGHT, ready * FULL_WEIGHT // self.replicas)

    def kept_for(self, weight: int) -> int:
        """Replicas, but for the unavailable ones, that ``weight`` keeps where what ``carried`` gives has left."""
        left = ((FULL_WEIGHT - weight + 1) * self.replicas - 1) // FULL_WEIGHT
        return self.replicas - left - self.unavailable


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two revisions that traffic moves between."""

    existing: int
    ready: int
    weight: int
    """Traffic that it may still have."""


def bounds(settings: Rollout, replicas: int) -> Bounds:
    """The bounds that ``settings`` mean for so many replicas, rounded as a Deployment's are."""
    surge = _resolved(settings.max_surge, replicas, math.ceil)
    unavailable = min(_resolved(settings.max_unavailable, replicas, math.floor), replicas)
    return Bounds(replicas, surge, unavailable if surge or unavailable else 1)


def divided(within: Bounds, gives: Side, takes: Side, wanted: int, others: int = 0) -> tuple[int, int]:
    """Replicas of the revision that gives traffic away and of the one that takes it, which wants so many.

    ``others`` replicas of other revisions take room, too.
    """
    room = within.room - others
    least = max(within.floor - takes.ready, within.kept_for(gives.weight), 0)
    given = min(within.replicas, max(room - wanted, least))
    taken = max(0, min(wanted, room - max(given, gives.existing)))
    # What grows back gets room only from replicas that the floor can do without.
    must = min(takes.ready, max(0, within.floor - min(given, gives.ready)))
    if taken < must:
        return max(min(given, gives.existing), min(given, room - must)), must
    return given, taken


def returned(within: Bounds, stable: Side, leaving: Side) -> tuple[int, int]:
    """Replicas of the stable revision and of one that is to go, whose replicas stay until the router is done with them.

    Only where nothing of the stable one is ready and there is no room for it they go before, since the router would
    wait for the one and there would be no room for it because of the other.
    """
    kept = leaving.existing
    if not stable.ready and within.replicas + kept > within.room:
        kept = min(kept, max(within.room - within.replicas, within.floor, within.kept_for(leaving.weight), 0))
    free = within.room - max(kept, leaving.existing)
    return min(within.replicas, max(stable.existing, free)), kept


def _resolved(value: int | str, replicas: int, rounded: Callable[[float], int]) -> int:
    text = str(value)
    return rounded(int(text[:-1]) * replicas / 100) if text.endswith("%") else int(text)
