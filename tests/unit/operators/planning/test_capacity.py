from __future__ import annotations

import pytest

from operators.api.model import Rollout
from operators.planning.capacity import Bounds, Side, bounds, divided, returned


@pytest.mark.parametrize(
    ("settings", "replicas", "expected"),
    [
        ({}, 4, Bounds(4, 4, 0)),
        ({"maxSurge": "25%", "maxUnavailable": "25%"}, 5, Bounds(5, 2, 1)),
        ({"maxSurge": 0}, 4, Bounds(4, 0, 1)),
        ({"maxSurge": "0%", "maxUnavailable": "10%"}, 4, Bounds(4, 0, 1)),
        ({"maxSurge": 0, "maxUnavailable": 9}, 4, Bounds(4, 0, 4)),
        ({"maxSurge": "3"}, 4, Bounds(4, 3, 0)),
    ],
)
def test_surge_and_unavailable_are_rounded_as_a_deployments_are(
    settings: dict[str, object], replicas: int, expected: Bounds
) -> None:
    assert bounds(Rollout.model_validate(settings), replicas) == expected


def test_with_room_beside_all_replicas_the_stable_revision_keeps_all_of_its_own() -> None:
    assert divided(Bounds(4, 4, 0), Side(4, 4, 5000), Side(2, 2, 5000), 3) == (4, 3)


@pytest.mark.parametrize("replicas", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("surge", [0, 1])
def test_without_room_replicas_move_one_by_one_and_never_below_the_floor(replicas: int, surge: int) -> None:
    within = Bounds(replicas, surge, 0 if surge else 1)
    stable, candidate = Side(replicas, replicas, 10_000), Side(0, 0, 0)
    for _ in range(4 * replicas):
        given, taken = divided(within, stable, candidate, replicas)
        assert max(given, stable.existing) + taken <= within.room or given == 0
        assert given + candidate.ready >= within.floor
        weight = within.carried(min(taken, candidate.existing))
        candidate = Side(taken, min(taken, candidate.existing), weight)
        stable = Side(given, given, 10_000 - weight)
    assert (stable.existing, candidate.ready) == (surge, replicas)


def test_what_grows_back_takes_no_room_from_replicas_that_the_floor_needs() -> None:
    assert divided(Bounds(3, 0, 1), Side(1, 0, 10_000), Side(2, 2, 0), 3) == (1, 2)


def test_what_leaves_keeps_its_replicas_until_the_router_is_done_with_it() -> None:
    assert returned(Bounds(4, 0, 1), Side(2, 2, 0), Side(2, 2, 5000)) == (2, 2)


def test_what_leaves_goes_first_where_else_nothing_could_ever_come_back() -> None:
    assert returned(Bounds(1, 0, 1), Side(0, 0, 0), Side(1, 1, 10_000)) == (0, 0)
    assert returned(Bounds(1, 0, 1), Side(0, 0, 0), Side(0, 0, 10_000)) == (1, 0)
