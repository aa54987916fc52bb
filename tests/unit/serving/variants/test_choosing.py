from __future__ import annotations

import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from serving.variants import choosing
from serving.variants.choosing import Aim, Cell, Point, Took

SIZES = (1, 2, 4, 8, 16, 32)
AIM = Aim(SIZES, cores=2)


def calls(fixed: float, each: float, form: str = "a", speedup: float = 1.6) -> dict[Cell, Took]:
    """All cells of a form whose calls cost ``fixed + each * batch``; two threads cost 1.2 times that."""
    one = {Cell(form, 1, size): Took(fixed + each * size, 1.1 * (fixed + each * size)) for size in SIZES}
    two = {Cell(form, 2, cell.batch): Took(1.2 * took.cpu_ms, took.cpu_ms / speedup) for cell, took in one.items()}
    return {**one, **two}


def searched(everything: dict[Cell, Took], aim: Aim = AIM) -> dict[Cell, Took]:
    """What is measured until nothing is left to be."""
    forms = sorted({cell.form for cell in everything})
    known: dict[Cell, Took] = {}
    for _ in range(100):
        cells = choosing.following(forms, known, aim)
        if not cells:
            return known
        assert not known.keys() & set(cells)
        known |= {cell: everything[cell] for cell in cells}
    raise AssertionError("it does not end")


def test_the_ends_are_measured_of_all_and_the_best_beside_its_best_batch_and_on_all_cores() -> None:
    known = searched({**calls(1.0, 1.0, "slow"), **calls(0.1, 0.1, "quick")})
    assert set(known) == {
        Cell("slow", 1, 1),
        Cell("slow", 1, 32),
        Cell("quick", 1, 1),
        Cell("quick", 1, 32),
        Cell("quick", 1, 16),
        Cell("quick", 2, 32),
    }
    assert choosing.best(known, AIM, ["slow", "quick"]) == Cell("quick", 1, 32)


def test_a_best_batch_between_the_ends_is_climbed_to() -> None:
    everything = calls(1.0, 1.0)
    everything[Cell("a", 1, 32)] = Took(64.0, 64.0)  # beyond a cache
    assert choosing.best(searched(everything), AIM, ["a"]) == Cell("a", 1, 16)


def test_threads_are_used_where_they_cost_less() -> None:
    everything = calls(1.0, 1.0)
    everything[Cell("a", 2, 32)] = Took(20.0, 10.0)
    assert choosing.best(searched(everything), AIM, ["a"]) == Cell("a", 2, 32)


def test_batches_whose_calls_take_longer_than_the_target_do_not_count() -> None:
    aim = Aim(SIZES, cores=2, target_ms=10.0)
    assert choosing.best(searched(calls(1.0, 1.0), aim), aim, ["a"]) == Cell("a", 1, 8)


def test_all_cores_are_tried_where_one_is_too_slow_for_the_target() -> None:
    aim = Aim(SIZES, cores=2, target_ms=1.5)
    assert choosing.best(searched(calls(1.0, 1.0), aim), aim, ["a"]) == Cell("a", 2, 1)


def test_where_nothing_meets_the_target_there_is_no_best_and_a_quickest() -> None:
    aim = Aim(SIZES, cores=2, target_ms=0.1)
    known = searched({**calls(1.0, 1.0, "slow"), **calls(0.5, 0.5, "quick")}, aim)
    assert choosing.best(known, aim, ["slow", "quick"]) is None
    assert choosing.quickest(known, ["slow", "quick"]) == Cell("quick", 2, 1)


def test_a_single_core_is_not_tried_twice() -> None:
    known = searched(calls(1.0, 1.0), Aim(SIZES, cores=1))
    assert all(cell.threads == 1 for cell in known)


@hypothesis.given(
    st.lists(st.tuples(st.floats(0.001, 100), st.floats(0.001, 100)), min_size=1, max_size=8),
    st.none() | st.floats(0.01, 1000),
)
def test_on_lines_the_choice_is_that_of_the_whole_table_or_within_a_twentieth(
    forms: list[tuple[float, float]], target_ms: float | None
) -> None:
    everything = dict(itertools.chain(*(calls(a, b, f"f{at}").items() for at, (a, b) in enumerate(forms))))
    names = {cell.form for cell in everything}
    aim = Aim(SIZES, cores=2, target_ms=target_ms)
    known = searched(everything, aim)
    found, wanted = choosing.best(known, aim, names), choosing.best(everything, aim, names)
    if target_ms is None:
        assert wanted is not None
        assert found is not None
        assert choosing.cost(found, known) <= 1.05 * choosing.cost(wanted, everything)
    assert all(aim.counts(cell, known[cell]) for cell in (found,) if cell is not None)


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ({"a": Point(0.9, 1.0, 10), "b": Point(0.8, 2.0, 20)}, ["a"]),
        ({"a": Point(0.9, 1.0, 10), "b": Point(0.95, 2.0, 20)}, ["a", "b"]),
        ({"a": Point(0.9, 1.0, 10), "b": Point(0.9, 2.0, 5)}, ["a", "b"]),
        ({"a": Point(0.9, 1.0, 10), "b": Point(0.9, 1.0, 10)}, ["a"]),
    ],
)
def test_the_frontier_is_what_no_other_one_beats(points: dict[str, Point], kept: list[str]) -> None:
    assert choosing.frontier(points) == kept
