from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.counted import read, told
from operators.api.plan import CELLS, MOST_SERVERS, Counts, RouteObserved

latencies = st.dictionaries(st.sampled_from(CELLS), st.integers(0, 10**12), max_size=len(CELLS))


def counts(servers: dict[str, tuple[int, dict[int, int]]], unanswered: int = 0) -> Counts:
    """Of what each server failed and answered well, and what no server answered."""
    latency = {
        cell: sum(cells.get(cell, 0) for _, cells in servers.values())
        for cell in sorted({cell for _, cells in servers.values() for cell in cells})
    }
    failed = sum(failed for failed, _ in servers.values()) + unanswered
    return Counts(
        failed + sum(latency.values()),
        failed,
        latency,
        {name: (failed + sum(cells.values()), failed) for name, (failed, cells) in servers.items()},
        {name: cells for name, (_, cells) in servers.items() if cells},
    )


def observed(found: Counts) -> RouteObserved:
    return RouteObserved((), counts={"8@170": {"digits-r1": found}}, read_s={"8@170": 12.5})


servers = st.dictionaries(
    st.sampled_from([f"10.0.0.{n}:8080" for n in range(MOST_SERVERS)]), st.tuples(st.integers(0, 9), latencies)
)


@given(servers, st.integers(0, 9))
def test_what_is_told_is_read_as_it_was(of: dict[str, tuple[int, dict[int, int]]], unanswered: int) -> None:
    found = counts(of, unanswered)
    said = json.loads(json.dumps(told(observed(found))))
    assert read(said, "router-1") == ({"router-1/8@170": {"digits-r1": found}}, {"router-1/8@170": 12.5})


@pytest.mark.parametrize(
    "found", [Counts(agreed=3, disagreed=1), Counts(judged=12, wrong=5), Counts(9, 2, {1100: 7}, judged=1, agreed=2)]
)
def test_what_came_of_copies_and_what_users_said_is_read_as_it_was_told(found: Counts) -> None:
    said = json.loads(json.dumps(told(observed(found))))
    assert read(said, "router-1")[0] == {"router-1/8@170": {"digits-r1": found}}


def test_more_wrong_answers_than_users_told_of_are_no_report() -> None:
    assert read({"8@170": [12.5, {"digits-r1": [0, 0, [], {}, [0, 0, 1, 2]]}]}, "router-1") == ({}, {})


def test_cells_are_told_one_after_the_other_with_how_many_empty_ones_are_between() -> None:
    [[_, workloads]] = told(observed(counts({"10.0.0.1:8080": (2, {1100: 40, 1300: 7, 1_000_000: 1})}))).values()
    cells = [1100, 40, 7, -57, 1]
    assert workloads == {"digits-r1": [50, 2, cells, {"10.0.0.1:8080": [2, cells]}]}


def test_an_arm_of_any_number_of_servers_that_answer_in_1_to_10_ms_or_stall_takes_two_kib() -> None:
    times = {cell: 100 + cell for cell in CELLS if 1_000 <= cell < 10_000} | {2_000_000: 3}
    found = counts({f"10.244.{n}.17:8080": (3, times) for n in range(100, 200)})
    [[_, workloads]] = told(observed(found)).values()
    text = json.dumps(workloads, separators=(",", ":"))
    assert len(workloads["digits-r1"][3]) == MOST_SERVERS
    assert len(text) < 2048, text
