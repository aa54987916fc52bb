from __future__ import annotations

import pytest

from operators.router.ejection import FIRST_S, LONGEST_S, Record, Tally, Which, judged, left_out

SERVERS = ("a", "b", "c", "d")


class Looks:
    """Looks at one backend's servers, a second apart."""

    def __init__(self, number: int) -> None:
        self.tallies = dict.fromkeys(SERVERS[:number], Tally())
        self.records: dict[Which, Record] = {}
        self.now_s = 100.0
        self.after({})

    def after(self, more: dict[str, tuple[int, int]]) -> set[str]:
        """Who is left out once the servers have answered so many more well, and failed so many."""
        for name, (well, failed) in more.items():
            was = self.tallies[name]
            self.tallies[name] = Tally(was.well + well, was.failed + failed)
        self.now_s += 1
        self.records = judged(self.records, {"m:a:h1": self.tallies}, self.now_s)
        return {name for _, name in left_out(self.records, self.now_s)}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"a": (0, 5), "b": (5, 0)}, {"a"}),
        ({"a": (50, 50), "b": (100, 0)}, {"a"}),
        ({"a": (51, 49), "b": (100, 0)}, set()),
        ({"a": (0, 4), "b": (50, 0)}, set()),
        ({"a": (0, 50), "b": (40, 10)}, set()),
        ({"a": (0, 50), "b": (0, 50)}, set()),
        ({"a": (0, 50)}, set()),
        ({"a": (0, 9), "b": (0, 9), "c": (9, 0)}, {"a"}),
        ({"a": (0, 9), "b": (0, 9), "c": (9, 0), "d": (9, 0)}, {"a", "b"}),
        ({"a": (0, 9), "b": (0, 9), "c": (0, 9), "d": (9, 0)}, set()),
    ],
)
def test_a_server_that_fails_where_half_of_the_others_do_not_is_left_out_up_to_half_of_them(
    answers: dict[str, tuple[int, int]], expected: set[str]
) -> None:
    assert Looks(len(answers)).after(answers) == expected


def test_few_requests_are_judged_once_there_are_enough() -> None:
    looks = Looks(2)
    assert [looks.after({"a": (0, 1), "b": (1, 0)}) for _ in range(5)] == [set()] * 4 + [{"a"}]


def test_who_fails_again_is_left_out_for_twice_as_long_and_who_does_well_is_trusted_again() -> None:
    looks, spans = Looks(2), []
    for _ in range(9):
        assert looks.after({"a": (0, 5), "b": (5, 0)}) == {"a"}
        spans.append(looks.records["m:a:h1", "a"].out_until_s - looks.now_s)
        looks.now_s += spans[-1]
        assert looks.after({}) == set()
    assert spans == [FIRST_S * 2**n for n in range(6)] + [LONGEST_S] * 3
    for _ in range(9):
        looks.after({"a": (5, 0)})
    looks.after({"a": (0, 5), "b": (5, 0)})
    assert looks.records["m:a:h1", "a"].out_until_s - looks.now_s == FIRST_S


def test_others_are_asked_what_they_did_meanwhile_and_not_when_they_were_last_judged() -> None:
    looks = Looks(2)
    looks.after({"a": (5, 0), "b": (5, 0)})
    assert looks.after({"a": (0, 5), "b": (0, 4)}) == set()


def test_what_is_answered_while_left_out_and_what_a_new_worker_counts_anew_is_not_held_against_a_server() -> None:
    looks = Looks(2)
    looks.after({"a": (0, 5), "b": (5, 0)})
    assert looks.after({"a": (0, 9)}) == {"a"}
    looks.now_s += FIRST_S
    assert looks.after({}) == set()
    looks.tallies = {"a": Tally(0, 5), "b": Tally()}
    assert looks.after({}) == set()
