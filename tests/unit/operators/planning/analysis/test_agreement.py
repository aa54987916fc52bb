import datetime
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.api.model import Agreement, Analysis
from operators.planning.analysis import agreement, published, weighing


def mean_e(n: int, allowed: float, odds: float, p: float) -> float:
    """Over all outcomes of ``n`` requests, on each of which the candidate disagrees with the chance ``p``."""
    return math.fsum(
        math.comb(n, d) * p**d * (1 - p) ** (n - d) * math.exp(agreement.log_e(n, d, allowed, odds))
        for d in range(n + 1)
    )


@settings(max_examples=200)
@given(n=st.integers(0, 12), allowed=st.floats(0.001, 0.5), odds=st.floats(1.01, 30), share=st.floats(0, 1))
def test_the_mean_is_at_most_one_where_the_candidate_disagrees_on_no_more_than_is_allowed(
    n: int, allowed: float, odds: float, share: float
) -> None:
    assert mean_e(n, allowed, odds, share * allowed) <= 1 + 1e-9


@settings(max_examples=200)
@given(n=st.integers(0, 12), allowed=st.floats(0.001, 0.5), odds=st.floats(0.05, 0.99), more=st.floats(0, 1))
def test_the_mean_of_the_one_for_fewer_is_at_most_one_where_it_disagrees_on_more(
    n: int, allowed: float, odds: float, more: float
) -> None:
    assert mean_e(n, allowed, odds, min(allowed + more * (1 - allowed), 1.0)) <= 1 + 1e-9


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=5), st.floats(0.001, 0.5))
def test_windows_add_up_to_what_all_of_them_say_at_once(windows: list[tuple[int, int]], allowed: float) -> None:
    parts = sum(agreement.log_e(a + d, d, allowed, 3.0) for a, d in windows)
    whole = agreement.log_e(sum(a + d for a, d in windows), sum(d for _, d in windows), allowed, 3.0)
    assert parts == pytest.approx(whole, abs=1e-6)


def test_three_disagreements_in_a_row_are_worth_thousands_where_one_in_fifty_is_allowed() -> None:
    assert math.exp(agreement.log_e(3, 3, 0.02, 30)) == pytest.approx(6_845.3, rel=1e-5)


def found_s(compared_per_s: int, allowed: float, chance: float, bound: float, draw: random.Random) -> float:
    """When the mean of the e-values reaches ``bound``, one look a window."""
    logs, at_s = [0.0] * len(weighing.WORSE), 0.0
    while math.log(statistics.fmean(math.exp(min(log, 500.0)) for log in logs)) < math.log(bound):
        compared = round(compared_per_s * weighing.WINDOW_S)
        disagreed = sum(draw.random() < chance for _ in range(compared))
        logs = [
            log + agreement.log_e(compared, disagreed, allowed, o) for log, o in zip(logs, weighing.WORSE, strict=True)
        ]
        at_s += weighing.WINDOW_S
    return at_s


def test_half_of_the_revisions_that_differ_twice_as_often_as_allowed_are_found_when_it_was_published() -> None:
    asked = Analysis(agreement=Agreement(percent=20, max_disagreement=0.02))
    begun = weighing.begin(None, "a", "b", asked, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    assert published.agreement_detection_s(begun, asked, 0.5) is None, "no traffic is known"
    known = begun.model_copy(update={"answered": 10_000, "observed_s": 100.0})
    expected_s = published.agreement_detection_s(known, asked, 0.5)
    assert published.agreement_detection_s(known, Analysis(), 0.5) is None
    draw = random.Random(1)
    # 100 requests a second, of which half go to the stable revision and a fifth of these are copied.
    median = statistics.median(found_s(10, 0.02, 0.04, 2 / asked.alpha, draw) for _ in range(200))
    assert expected_s == pytest.approx(median, rel=0.2)
