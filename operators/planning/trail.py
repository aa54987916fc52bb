"""How a rollout went, in at most 64 points: what its report draws.

A point is added where something that is drawn is another than before, and only with a status that is written anyway:
it changes nothing by itself. Where there are too many, every other one goes; the first and the last stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from operators.api.status import Point, RolloutStatus

MOST_POINTS = 64


def followed(before: RolloutStatus, after: RolloutStatus, at: str) -> RolloutStatus:
    """``after``, which is decided ``at`` a time (RFC 3339), with the points of ``before`` and one of its own."""
    if after.model_copy(update={"trail": before.trail}) == before:
        return before
    return after.model_copy(update={"trail": _grown(before.trail, _point(after, at))})


def _point(status: RolloutStatus, at: str) -> Point:
    against, in_favour = (None if each is None else each.e for each in (status.against, status.in_favour))
    return Point(at=at, asked=status.weight, observed=status.observed, against=against, in_favour=in_favour)


def _grown(points: Sequence[Point], new: Point) -> tuple[Point, ...]:
    if points and points[-1].model_copy(update={"at": new.at}) == new:
        return tuple(points)
    # Times are in seconds, and what has begun may be at its first step within one.
    kept = [point for point in points if (point.at, point.asked) != (new.at, new.asked)]
    if len(kept) >= MOST_POINTS:
        kept = [*kept[:-1:2], kept[-1]]
    return (*kept, new)
