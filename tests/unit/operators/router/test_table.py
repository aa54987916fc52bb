from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.endpoint import Assignment
from operators.api.errors import InvalidObject
from operators.api.plan import Arm, Route, Split
from operators.router.table import Places, Server, Table, successor

SERVER = Server("127.0.0.1", 8001, 9001, True)


def arm(name: str, weight: int) -> Arm:
    return Arm(f"m-{name}", name, "fp32", weight)


def after(before: Table, *arms: Arm) -> Table:
    return successor(before, [Route("ns", "m", arms)], {}, None)


def test_a_new_arm_takes_the_place_that_is_free() -> None:
    first = after(Table(), arm("r1", 10_000))
    both = after(first, arm("r1", 9_000), arm("r2", 1_000))
    second = after(both, arm("r2", 10_000))
    third = after(second, arm("r3", 10_000))
    assert [t.models["ns/m"] for t in (first, both, second, third)] == [
        Places(a=arm("r1", 10_000)),
        Places(a=arm("r1", 9_000), b=arm("r2", 1_000)),
        Places(b=arm("r2", 10_000)),
        Places(a=arm("r3", 10_000)),
    ]


def test_a_newcomer_replaces_the_arm_with_less_traffic() -> None:
    both = after(Table(), arm("r1", 0), arm("r2", 10_000))
    assert after(both, arm("r3", 10_000)).models["ns/m"] == Places(a=arm("r3", 10_000))


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=2, unique=True), min_size=1, max_size=8))
def test_arms_that_stay_keep_their_place_and_none_is_lost(steps: list[list[int]]) -> None:
    table = Table()
    for names in steps:
        weights = [10_000] if len(names) == 1 else [4_000, 6_000]
        arms = [arm(f"r{name}", weight) for name, weight in zip(names, weights, strict=True)]
        before, table = table, after(table, *arms)
        places, old = table.models["ns/m"], before.models.get("ns/m", Places())
        assert sorted(a.workload for a in places.arms) == sorted(a.workload for a in arms)
        for now, then in ((places.a, old.b), (places.b, old.a)):
            assert now is None or then is None or now.workload != then.workload


def test_servers_of_workloads_without_an_arm_are_left_out() -> None:
    servers = {"ns/m-r1": (SERVER,), "ns/m-r2": (SERVER,), "other/m-r1": (SERVER,), "ns/m-r3": ()}
    table = successor(Table(), [Route("ns", "m", (arm("r1", 5_000), arm("r3", 5_000)))], servers, SERVER)
    assert (table.servers, table.catalog) == ({"ns/m-r1": (SERVER,)}, SERVER)


def test_the_route_can_be_had_back_from_its_places() -> None:
    route = Route("ns", "m", (arm("r1", 9_000), arm("r2", 1_000)), "why", True, assignment=Assignment(cookie="id"))
    assert successor(Table(), [route], {}, None).models["ns/m"].route("ns/m") == route


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            Route("ns", "m", (arm("r1", 8_000), arm("r2", 1_000), arm("r3", 1_000))),
            "route ns/m has 3 arms (m-r1, m-r2, m-r3), the router holds 2; finish one rollout before the next",
        ),
        (
            Route("ns", "m", (arm("r1", 8_000), arm("r2", 1_000))),
            "route ns/m: weights [8000, 1000] do not add up to 10000; correct the weights",
        ),
        (
            Split("ns", "e", (("one", 11_000), ("two", -1_000))),
            "route ns/e: weights [11000, -1000] do not add up to 10000; correct the weights",
        ),
    ],
)
def test_a_route_that_cannot_be_is_refused_by_name(route: Route | Split, message: str) -> None:
    with pytest.raises(InvalidObject) as found:
        successor(Table(), [route], {}, None)
    assert str(found.value) == message
