from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from serving.variants import intervals


@pytest.mark.parametrize(
    ("lost", "gained", "samples", "bound"),
    [(0, 0, 599, 0.0050), (3, 3, 599, 0.0075), (3, 0, 599, 0.0129), (0, 0, 60, 0.0490), (1, 0, 60, 0.0770)],
)
def test_the_bound_of_a_table_is_as_worked_out(lost: int, gained: int, samples: int, bound: float) -> None:
    assert intervals.paired_drop(lost, gained, samples, 0.05) == pytest.approx(bound, abs=0.0015)


def test_without_gains_to_speak_of_the_bound_is_about_the_exact_binomial_one() -> None:
    exact = stats.beta.ppf(0.95, 4, 597)
    assert intervals.paired_drop(3, 0, 599, 0.05) == pytest.approx(exact, rel=0.08)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 2000))
def test_the_bound_is_above_the_estimate_and_grows_with_each_loss(lost: int, gained: int, samples: int) -> None:
    bound = intervals.paired_drop(lost, gained, samples, 0.05)
    assert (lost - gained) / samples < bound <= 1
    assert intervals.paired_drop(lost + 1, gained, samples, 0.05) > bound


def test_a_variant_that_is_worse_by_the_budget_passes_no_more_often_than_alpha() -> None:
    """The whole distribution of outcomes is added up, not drawn."""
    samples, drop, alpha = 120, 0.05, 0.05
    most = [_most_lost(gained, samples, drop, alpha) for gained in range(13)]
    for p_gained in (0.0, 0.005, 0.02):
        p = [p_gained + drop, p_gained, 1 - 2 * p_gained - drop]
        chance = sum(
            stats.multinomial.pmf([lost, gained, samples - lost - gained], samples, p)
            for gained, limit in enumerate(most)
            for lost in range(limit + 1)
        )
        assert 0.2 * alpha < chance <= alpha


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize(
    ("lost", "gained", "samples"),
    [(0, 0, 1), (0, 1, 1), (1, 1, 2), (0, 5, 5), (2, 5, 30), (0, 20, 20), (4, 1, 60), (10, 9, 99), (3, 3, 599)],
)
def test_nothing_beyond_the_bound_is_left_unrefused(lost: int, gained: int, samples: int, alpha: float) -> None:
    """The bound is found by halving, which is right only where no larger drop has a larger chance again."""
    bound = intervals.paired_drop(lost, gained, samples, alpha)
    beyond = np.linspace(bound, min(bound + max(0.02, 4 / samples), 1), 100)[1:]
    assert all(intervals.is_refused(lost, gained, samples, float(drop), alpha) for drop in beyond)
    assert not intervals.is_refused(lost, gained, samples, bound - 1e-4, alpha)


def test_one_sample_bounds_next_to_nothing() -> None:
    """(1 - drop) is the chance to see no loss."""
    assert intervals.paired_drop(0, 0, 1, 0.05) == pytest.approx(0.951, abs=1e-3)
    assert intervals.paired_drop(1, 0, 1, 0.05) == 1.0
    assert intervals.paired_drop(0, 0, 0, 0.05) == 1.0


def test_a_variant_that_has_everything_right_that_the_source_had_wrong_is_bounded_near_minus_one() -> None:
    assert -1 < intervals.paired_drop(0, 100, 100, 0.05) < -0.9


def _most_lost(gained: int, samples: int, drop: float, alpha: float) -> int:
    """The most losses that are accepted beside so many gains; -1 where none are."""
    lost = 0
    while intervals.paired_drop(lost, gained, samples, alpha) <= drop:
        lost += 1
    return lost - 1


@pytest.mark.parametrize(
    ("most", "churn", "power"),
    [(0.01, 0.0, 0.9), (0.01, 0.005, 0.9), (0.05, 0.005, 0.99), (0.05, 0.02, 0.9), (0.1, 0.05, 0.99)],
)
def test_the_samples_asked_for_are_enough_and_hardly_too_many(most: float, churn: float, power: float) -> None:
    """Against the exact chance of a variant that gains as often as it loses."""
    needed = intervals.samples_needed(most, churn, 0.05, power)
    assert _passing(needed, churn, most, 0.05) >= power
    assert _passing(math.floor(needed - 3 / most), churn, most, 0.05) < power


def _passing(samples: int, churn: float, drop: float, alpha: float) -> float:
    """The chance that the bound is at most ``drop``."""
    gains = stats.binom(samples, churn / 2)
    chance, most = 0.0, -1
    for gained in range(int(gains.ppf(1e-7)), int(gains.isf(1e-7)) + 1):
        while most + 1 + gained <= samples and intervals.paired_drop(most + 1, gained, samples, alpha) <= drop:
            most += 1
        chance += gains.pmf(gained) * stats.binom.cdf(most, samples - gained, churn / 2 / (1 - churn / 2))
    return float(chance)


def test_a_mean_drop_is_bounded_above_its_estimate() -> None:
    drops = np.random.default_rng(0).normal(0.01, 0.05, 400)
    bound = intervals.mean_drop(drops, 0.05)
    assert bound == pytest.approx(drops.mean() + 1.645 * drops.std() / 20, abs=0.001)


def test_equal_scores_of_all_samples_leave_nothing_to_resample() -> None:
    assert intervals.mean_drop(np.zeros(50), 0.05) == 0.0
