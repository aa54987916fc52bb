import pytest

from operators.planning.analysis import detection, odds
from operators.planning.analysis.windows import Table


@pytest.mark.parametrize("ratio", [1.5, 3.0, 30.0])
@pytest.mark.parametrize(("stable", "candidate"), [(0.001, 0.01), (0.01, 0.03), (0.4, 0.5)])
def test_the_gain_of_a_request_is_that_of_a_long_window(stable: float, candidate: float, ratio: float) -> None:
    n = 1_000_000
    table = Table(n // 10, round(n * candidate / 10), n * 9 // 10, round(n * stable * 9 / 10))
    assert detection.gain(0.1, stable, candidate, ratio) == pytest.approx(odds.log_e(table, ratio) / n, rel=2e-3)


def test_an_equal_candidate_gains_nothing_and_is_never_found() -> None:
    gains = [detection.gain(0.1, 0.01, 0.01, ratio) for ratio in (1.5, 3.0, 30.0)]
    assert max(gains) < 0
    assert detection.median_s(gains, 100, 5.0) is None


def test_the_time_is_rounded_up_to_the_end_of_a_window() -> None:
    assert detection.time_s([1.0], 20.0) == pytest.approx(2.9957, abs=1e-3)
    assert detection.median_s([1.0], 20.0, 5.0) == 5.0


def test_alternatives_that_gain_nothing_cost_their_share() -> None:
    assert detection.time_s([1.0, -1.0], 20.0) == pytest.approx(3.689, abs=1e-3)
