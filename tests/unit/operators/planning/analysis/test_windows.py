import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.evidence import Edge
from operators.api.plan import Arm, Counts, RouteObserved
from operators.planning.analysis import windows
from operators.planning.analysis.windows import Table, Window

EDGES = (Edge(above_us=1000, allowed_us=1250, share=0.1, share_if_slower=0.2),)


def told(**sources: dict[str, Counts]) -> RouteObserved:
    return RouteObserved((Arm("a", "a", "v", 9000), Arm("b", "b", "v", 1000)), counts=sources)


def between(before: RouteObserved, after: RouteObserved) -> tuple[Window, ...]:
    return windows.between(*(windows.marks(seen, "a", "b", EDGES) for seen in (before, after)))


STABLE, CANDIDATE = Counts(100, 1, {500: 90, 1000: 9}), Counts(10, 0, {500: 9, 1000: 1})


def more(counts: Counts, answered: int, failed: int, slow: int) -> Counts:
    cells = dict(counts.latency)
    cells[500] += answered - failed - slow
    cells[1250] = cells.get(1250, 0) + slow
    return Counts(counts.answered + answered, counts.failed + failed, cells)


def test_a_window_is_what_was_added_by_either_side() -> None:
    before = told(r={"a": STABLE, "b": CANDIDATE})
    after = told(r={"a": more(STABLE, 50, 2, 3), "b": more(CANDIDATE, 5, 1, 2)})
    assert between(before, after) == (
        Window(Table(5, 1, 50, 2), slower=(Table(4, 2, 48, 3),), too_slow=(Table(4, 2, 48, 3),)),
    )


def test_what_the_candidate_answers_between_the_edge_and_the_allowed_one_is_slower_but_not_too_slow() -> None:
    after = dataclasses.replace(CANDIDATE, answered=12, latency={500: 9, 1000: 3})
    (window,) = between(told(r={"a": STABLE, "b": CANDIDATE}), told(r={"a": STABLE, "b": after}))
    assert (window.slower, window.too_slow) == ((Table(2, 2, 0, 0),), (Table(2, 0, 0, 0),))


@pytest.mark.parametrize(
    "after",
    [
        {},
        {"other": {"a": STABLE, "b": CANDIDATE}},
        {"r": {"b": CANDIDATE}},
        {"r": {"a": Counts(99, 1, {500: 90, 1000: 9}), "b": CANDIDATE}},
        {"r": {"a": more(STABLE, 50, 2, 3), "b": Counts(5, 0, {500: 5})}},
        {"r": {"a": Counts(200, 0, {500: 200}), "b": CANDIDATE}},
    ],
    ids=["nothing told", "another source", "no stable", "stable reset", "candidate reset", "one counter reset"],
)
def test_what_is_not_known_at_both_ends_gives_no_window(after: dict[str, dict[str, Counts]]) -> None:
    assert between(told(r={"a": STABLE, "b": CANDIDATE}), told(**after)) == ()


def test_a_candidate_that_is_not_told_of_had_no_request() -> None:
    (window,) = between(told(r={"a": STABLE}), told(r={"a": more(STABLE, 50, 2, 3), "b": CANDIDATE}))
    assert window.errors == Table(0, 0, 50, 2)


counts = st.builds(
    lambda failed, fast, slow: Counts(failed + fast + slow, failed, {500: fast, 2000: slow}),
    *(st.integers(0, 50),) * 3,
)


@given(st.lists(st.tuples(counts, counts, counts, counts), min_size=1, max_size=4))
def test_each_source_is_a_window_of_its_own_whatever_the_others_say(
    sources: list[tuple[Counts, Counts, Counts, Counts]],
) -> None:
    before = {f"r{n}": {"a": a, "b": b} for n, (a, b, _, _) in enumerate(sources)}
    after = {f"r{n}": {"a": a, "b": b} for n, (_, _, a, b) in enumerate(sources)}
    one_by_one = [between(told(**{name: before[name]}), told(**{name: after[name]})) for name in before]
    assert between(told(**before), told(**after)) == tuple(window for found in one_by_one for window in found)


def test_servers_whose_latency_is_not_told_are_compared_by_their_failures() -> None:
    counts = dataclasses.replace(STABLE, servers={"one": (60, 1), "two": (40, 0)})
    assert windows.by_server(told(r={"a": counts}), "a", EDGES, 12) == {"one": (60, 1, 0, 0), "two": (40, 0, 0, 0)}
    counts = dataclasses.replace(counts, server_latency={"one": {1000: 59}, "two": {500: 40}})
    assert windows.by_server(told(r={"a": counts}), "a", EDGES, 12) == {"one": (60, 1, 59, 59), "two": (40, 0, 40, 0)}


def test_one_server_or_none_is_all_there_is() -> None:
    for servers in ({}, {"one": (100, 1)}):
        counts = dataclasses.replace(STABLE, servers=servers)
        assert windows.by_server(told(r={"a": counts}), "a", EDGES, 12) == {"": (100, 1, 99, 9)}


def test_what_users_said_is_a_window_of_its_own_source_and_nothing_where_the_candidate_is_not_known() -> None:
    before = told(users={"a": Counts(judged=90, wrong=2), "b": Counts()})
    after = told(users={"a": Counts(judged=99, wrong=3), "b": Counts(judged=4, wrong=1)})
    (window,) = between(before, after)
    assert (window.judged, window.errors) == (Table(4, 1, 9, 1), Table(0, 0, 0, 0))
    unknown = told(users={"a": Counts(judged=90, wrong=2)})
    assert [window.judged for window in between(unknown, after)] == [Table(0, 0, 0, 0)]
