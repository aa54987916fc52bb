import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.planning.analysis import margin
from operators.planning.analysis.windows import Table


def mean_e(candidate: int, stable: int, allowed: float, rate: float, p: float, q: float) -> float:
    """Over all outcomes, where the candidate fails with the chance ``p`` and the stable with ``q``."""
    return math.fsum(
        _binomial(candidate, x, p)
        * _binomial(stable, y, q)
        * math.exp(margin.log_e(Table(candidate, x, stable, y), allowed, rate))
        for x in range(candidate + 1)
        for y in range(stable + 1)
    )


def _binomial(n: int, x: int, p: float) -> float:
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)


@settings(max_examples=200)
@given(
    candidate=st.integers(0, 8),
    stable=st.integers(0, 8),
    allowed=st.floats(0.001, 0.9),
    rate=st.floats(0.0001, 0.9999),
    base=st.floats(0, 1),
    more=st.floats(0, 1),
)
def test_the_mean_of_a_window_is_at_most_one_where_the_candidate_is_worse_by_the_margin(
    candidate: int, stable: int, allowed: float, rate: float, base: float, more: float
) -> None:
    q = base * (1 - allowed)
    p = q + allowed + more * (1 - allowed - q)
    assert mean_e(candidate, stable, allowed, rate, min(p, 1.0), q) <= 1 + 1e-9


def test_good_answers_alone_exclude_a_margin() -> None:
    one = margin.log_e(Table(1, 0, 0, 0), 0.01, 1e-6)
    assert one == pytest.approx(-math.log1p(-0.01), rel=1e-3)
    assert 298 * one < math.log(20) < 299 * one


def test_a_candidate_without_requests_is_no_evidence() -> None:
    assert margin.log_e(Table(0, 0, 500, 12), 0.01, 0.01) == 0.0
