from __future__ import annotations

import pytest

from operators.api.endpoint import Assignment
from operators.api.plan import Arm, Route, Split
from operators.router.assignment import maps, model_rules
from operators.router.table import Table, successor

R1, R2 = Arm("m-r1", "r1", "fp32", 9_000), Arm("m-r2", "r2", "int8", 1_000)


def table(*routes: Route | Split) -> Table:
    return successor(Table(), routes, {}, None)


def test_a_sticky_model_is_salted_with_the_revisions_that_it_is_drawn_between_and_not_with_their_weights() -> None:
    by = Assignment(header="X-Tenant", cookie="sid")
    salts = [
        maps(table(Route("default", "m", arms, assignment=by)))["salts.map"]
        for arms in (
            (Arm("m-r1", "r1", "fp32", 10_000),),
            (R1, R2),
            (Arm("m-r1", "r1", "fp32", 0), Arm("m-r2", "r2", "int8", 10_000)),
        )
    ]
    assert salts == [{"default/m": "r1.-"}, {"default/m": "r1.r2"}, {"default/m": "r1.r2"}]
    assert maps(table(Route("default", "m", (R1, R2), assignment=by)))["sticky.map"] == {"default/m": "x-tenant/sid"}


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        (
            (R1, Arm("m-r2", "r2", "fp32", 1_000)),
            {
                "r1/fp32": "default:m:a",
                "r1/": "default:m:a",
                "r2/fp32": "default:m:b",
                "r2/": "default:m:b",
                "/fp32": "any",
            },
        ),
        (
            (Arm("m-r1", "r1", "fp32", 10_000), Arm("m-r2", "r2", "int8", 0)),
            {"r1/fp32": "default:m:a", "r1/": "default:m:a", "/fp32": "default:m:a"},
        ),
    ],
    ids=["of one variant", "one without traffic"],
)
def test_a_client_may_ask_for_arms_that_have_traffic(arms: tuple[Arm, ...], expected: dict[str, str]) -> None:
    found = maps(table(Route("default", "m", arms)))["forced.map"]
    assert found == {f"default/m/{asked}": place for asked, place in expected.items()}


def test_what_is_hashed_costs_those_nothing_who_are_drawn() -> None:
    by = Assignment(cookie="sid")
    other = Route("default", "n", (), assignment=by)
    assert not [rule for rule in model_rules(table(Route("default", "m", (R1, R2)))) if "xxh32" in rule]
    both = table(Route("default", "m", (R1, R2), assignment=by), other)
    assert len([rule for rule in model_rules(both) if "xxh32" in rule]) == 1
