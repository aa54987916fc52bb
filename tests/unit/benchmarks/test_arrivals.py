import math

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.arrivals import poisson


@given(rate=st.floats(0.1, 200), duration_s=st.floats(0.1, 20), seed=st.integers(0, 2**32))
def test_moments_are_in_order_within_the_duration_and_repeat_with_the_seed(
    rate: float, duration_s: float, seed: int
) -> None:
    moments = poisson(rate, duration_s, seed)
    assert moments == tuple(sorted(moments))
    assert all(0 <= moment < duration_s for moment in moments)
    assert moments == poisson(rate, duration_s, seed)


def test_there_are_as_many_as_the_rate_says() -> None:
    expected = 50_000
    assert abs(len(poisson(500, 100, seed=1)) - expected) < 4 * math.sqrt(expected)
