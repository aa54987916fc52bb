from __future__ import annotations

import dataclasses
import datetime

from operators.api.status import Point, RolloutStatus
from operators.planning import trail
from operators.planning.times import timestamp
from tests.unit.operators.planning.world import START, World, model

BEFORE = RolloutStatus(
    revision="5e6f",
    stable="1a2b",
    began=timestamp(START),
    state="Progressing",
    since=timestamp(START),
    message="starts",
)


def at(seconds: int) -> str:
    return timestamp(START + datetime.timedelta(seconds=seconds))


def test_a_status_that_says_nothing_new_is_left_as_it_is() -> None:
    once = trail.followed(BEFORE, BEFORE.model_copy(update={"weight": 500}), at(1))
    assert once.trail == (Point(at=at(1), asked=500, observed=0),)
    assert trail.followed(once, once.model_copy(update={"trail": ()}), at(2)) == once


def test_what_changes_nothing_that_is_drawn_adds_no_point_and_one_time_has_one() -> None:
    once = trail.followed(BEFORE, BEFORE.model_copy(update={"weight": 500}), at(1))
    told = trail.followed(once, once.model_copy(update={"message": "goes on"}), at(2))
    assert told.trail == once.trail
    again = trail.followed(told, told.model_copy(update={"observed": 500}), at(1))
    assert again.trail == (Point(at=at(1), asked=500, observed=500),)


def test_a_share_that_was_asked_stays_though_the_next_one_was_within_the_same_second() -> None:
    began = trail.followed(BEFORE, BEFORE.model_copy(update={"message": "begins"}), at(1))
    stepped = trail.followed(began, began.model_copy(update={"weight": 1000}), at(1))
    assert [point.asked for point in stepped.trail] == [0, 1000]


def test_a_long_rollout_keeps_its_first_and_last_points_and_never_more_than_64() -> None:
    status = BEFORE
    for number in range(1, 1001):
        status = trail.followed(status, status.model_copy(update={"observed": number}), at(number))
        assert len(status.trail) <= trail.MOST_POINTS
        assert (status.trail[0].at, status.trail[-1].at) == (at(1), at(number))
        assert list(status.trail) == sorted(status.trail, key=lambda point: point.at)
    assert len(status.trail) > trail.MOST_POINTS / 2 - 2


def test_a_rollout_leaves_its_shares_as_asked_and_as_reported() -> None:
    rollout = {"steps": [{"weight": 10}, {"weight": 50}]}
    world = World(model("a", rollout=rollout))
    world.settle()
    world.edit(model("b", rollout=rollout))
    for _ in range(12):
        for name, seen in world.workloads.items():
            world.workloads[name] = dataclasses.replace(seen, ready=seen.wanted)
        world.report()
        world.now += datetime.timedelta(seconds=10)
        world.tick()
    done = world.model.status.rollout
    assert done is not None
    assert done.state == "Promoted"
    shares = [(point.asked, point.observed) for point in done.trail]
    assert shares == [(0, 0), (1000, 0), (5000, 1000), (10_000, 10_000)]
