"""The sample-ratio check."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.planning.experiments.assignment import ALARM, is_skewed, log_bayes_factor

SHARES = st.lists(st.integers(1, 20), min_size=2, max_size=4).map(lambda parts: [one / sum(parts) for one in parts])


@given(SHARES, st.lists(st.integers(0, 5_000), min_size=4, max_size=4))
def test_one_more_unit_is_not_expected_to_change_the_evidence(shares: list[float], counts: list[int]) -> None:
    units = counts[: len(shares)]
    now, expected = log_bayes_factor(units, shares), 0.0
    for place, share in enumerate(shares):
        after = [count + (place == at) for at, count in enumerate(units)]
        expected += share * math.exp(log_bayes_factor(after, shares) - now)
    assert expected == pytest.approx(1, abs=1e-6)


def test_units_that_come_as_asked_are_no_alarm_in_all_but_one_of_a_thousand_experiments() -> None:
    random, alarms = np.random.default_rng(7), 0
    for _ in range(300):
        first = np.cumsum(random.binomial(100, 0.9, size=200))
        alarms += any(is_skewed((int(x), 100 * (i + 1) - int(x)), (0.9, 0.1)) for i, x in enumerate(first))
    # Of 300 at a chance of 1 / ALARM each, three happen once in two hundred times.
    assert alarms < 3
    assert ALARM == 1_000


def test_a_skew_of_two_points_is_found() -> None:
    assert not is_skewed((500, 500), (0.5, 0.5))
    assert is_skewed((10_400, 9_600), (0.5, 0.5))


def test_units_where_none_can_come_are_no_matter_of_chance() -> None:
    assert log_bayes_factor((10, 0), (1.0, 0.0)) == pytest.approx(0)
    with pytest.raises(ValueError, match=r"units \[10, 1\] at an arm that gets none"):
        log_bayes_factor((10, 1), (1.0, 0.0))
