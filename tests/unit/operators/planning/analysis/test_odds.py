import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.planning.analysis import odds
from operators.planning.analysis.windows import Table

ODDS = st.sampled_from([1 / 30, 1 / 2, 1.5, 3.0, 30.0])


@st.composite
def margins(draw: st.DrawFn) -> tuple[int, int, int]:
    """Requests to the candidate, to the stable, and bad ones among them all."""
    candidate, stable = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    return candidate, stable, draw(st.integers(0, candidate + stable))


def chances(candidate: int, stable: int, bad: int, true_odds: float = 1.0) -> dict[int, float]:
    """How likely each number of the candidate's bad answers is, given the margins, by counting."""
    ways = {
        x: math.comb(candidate, x) * math.comb(stable, bad - x) * true_odds**x
        for x in range(max(0, bad - stable), min(candidate, bad) + 1)
    }
    total = math.fsum(ways.values())
    return {x: many / total for x, many in ways.items()}


def mean_e(candidate: int, stable: int, bad: int, ratio: float, true_odds: float = 1.0) -> float:
    return math.fsum(
        chance * math.exp(odds.log_e(Table(candidate, x, stable, bad - x), ratio))
        for x, chance in chances(candidate, stable, bad, true_odds).items()
    )


@given(margins(), ODDS)
def test_the_mean_of_a_window_is_one_where_both_are_equally_bad(given: tuple[int, int, int], ratio: float) -> None:
    assert mean_e(*given, ratio) == pytest.approx(1.0, abs=1e-9)


@given(margins(), st.sampled_from([1.5, 3.0, 30.0]), st.floats(0.05, 1.0))
def test_the_mean_of_a_window_is_at_most_one_where_the_candidate_is_better(
    given: tuple[int, int, int], ratio: float, true_odds: float
) -> None:
    assert mean_e(*given, ratio, true_odds) <= 1 + 1e-9
    assert mean_e(*given, 1 / ratio, 1 / true_odds) <= 1 + 1e-9


def test_a_window_of_one_failure_is_worth_what_the_formula_says() -> None:
    assert math.exp(odds.log_e(Table(100, 1, 900, 0), 3.0)) == pytest.approx(2.5)
    assert math.exp(odds.log_e(Table(100, 0, 900, 1), 3.0)) == pytest.approx(1 / 1.2)


@pytest.mark.parametrize(
    "table",
    [Table(0, 0, 900, 7), Table(100, 3, 0, 0), Table(100, 0, 900, 0), Table(100, 100, 900, 900), Table(0, 0, 0, 0)],
)
def test_what_cannot_tell_the_two_apart_is_no_evidence(table: Table) -> None:
    assert [odds.log_e(table, ratio) for ratio in (0.5, 3.0)] == [0.0, 0.0]


def test_every_small_window_agrees_with_counting_all_ways() -> None:
    for candidate, stable in itertools.product(range(1, 7), range(1, 7)):
        for bad in range(1, candidate + stable):
            mean = math.fsum(chance * 3.0**x for x, chance in chances(candidate, stable, bad).items())
            for x in chances(candidate, stable, bad):
                expected = x * math.log(3.0) - math.log(mean)
                assert odds.log_e(Table(candidate, x, stable, bad - x), 3.0) == pytest.approx(expected, abs=1e-12)


def test_a_window_of_a_hundred_thousand_requests_agrees_with_counting_all_ways() -> None:
    candidate, stable, bad = 10_000, 90_000, 5_000
    ways = [math.comb(candidate, x) * math.comb(stable, bad - x) for x in range(400, 700)]
    mean = sum(many * 3**x for x, many in zip(range(400, 700), ways, strict=True))
    beyond = [math.comb(candidate, x) * math.comb(stable, bad - x) * 3**x for x in range(700, 1800)]
    exact = math.log(mean + sum(beyond)) - math.log(math.comb(candidate + stable, bad))
    found = odds.log_e(Table(candidate, 520, stable, bad - 520), 3.0)
    assert found == pytest.approx(520 * math.log(3.0) - exact, abs=1e-6)
