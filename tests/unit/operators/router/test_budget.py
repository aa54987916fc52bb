from __future__ import annotations

import pytest

from operators.router.budget import FREE, WINDOW_S, Look, looked
from operators.router.ejection import Tally

Looks = dict[str, tuple[Look, ...]]
BACKEND = "default:m:a:h1"


def look(before: Looks, now_s: float, well: int, failed: int, again: int) -> tuple[Looks, bool]:
    """What is remembered, and whether the budget is spent, after two servers have counted so much."""
    servers = {"a": Tally(well, 0), "b": Tally(0, failed, again)}
    after, spent = looked(before, {BACKEND: servers}, now_s)
    return after, spent == {BACKEND: "1"}


@pytest.mark.parametrize(
    ("well", "failed", "again", "expected"),
    [
        (100, 0, 0, False),
        (0, FREE, FREE, False),
        (0, FREE + 1, FREE + 1, True),
        (80, 20, 20, False),
        (79, 21, 21, True),
        (0, 100, 0, False),
    ],
)
def test_a_fifth_of_what_ended_of_late_may_be_sent_again_and_a_few_always(
    well: int, failed: int, again: int, expected: bool
) -> None:
    before, spent = look({}, 100.0, 1_000, 500, 300)
    assert not spent, "what was before the first look is not known"
    assert look(before, 101.0, 1_000 + well, 500 + failed, 300 + again)[1] == expected


def test_a_budget_that_was_spent_is_there_again_when_the_window_has_passed() -> None:
    looks, _ = look({}, 100.0, 0, 0, 0)
    found = []
    for second in range(1, 14):
        looks, spent = look(looks, 100.0 + second, 0, 10 * second, 10)
        found.append(spent)
    assert found == [True] * 4 + [False] * 9
    assert len(looks[BACKEND]) <= WINDOW_S + 1


def test_counters_that_went_backwards_begin_anew() -> None:
    looks, _ = look({}, 100.0, 0, 50, 0)
    assert look(looks, 101.0, 0, 40, 40) == ({BACKEND: ((101.0, 40, 40),)}, False)
