"""Sums of rewards."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.outcomes import Sums

PAIRS = st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=40)


def summed(pairs: list[tuple[float, float]]) -> Sums:
    return sum((Sums.of(y, x) for y, x in pairs), Sums())


@given(PAIRS, st.floats(-3, 3))
def test_sums_know_mean_and_variance_of_what_was_added(pairs: list[tuple[float, float]], theta: float) -> None:
    found = summed(pairs)
    assert found.mean == pytest.approx(statistics.fmean(y for y, _ in pairs), abs=1e-6)
    corrected = statistics.variance(y - theta * x for y, x in pairs)
    assert found.variance(theta) == pytest.approx(corrected, rel=1e-6, abs=1e-4)


@given(PAIRS, PAIRS)
def test_sums_of_two_routers_are_those_of_all_units(
    here: list[tuple[float, float]], there: list[tuple[float, float]]
) -> None:
    both, all_ = summed(here) + summed(there), summed(here + there)
    assert both.n == all_.n
    assert both.mean == pytest.approx(all_.mean, abs=1e-6)
    assert both.variance() == pytest.approx(all_.variance(), rel=1e-6, abs=1e-4)


def test_units_that_count_half_leave_the_mean_where_it_is() -> None:
    found = summed([(1, 0), (3, 0)])
    assert (found.times(0.5).n, found.times(0.5).mean) == (1, 2)
