from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from operators.runtime.backoff import Backoff


class Full(random.Random):
    """Never waits less than it may."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_doubles_up_to_its_cap() -> None:
    backoff = Backoff(first_s=0.5, cap_s=30, random=Full())
    assert [backoff.delay_s(n) for n in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_waits_between_half_and_all_of_it(failures: int, seed: int) -> None:
    full_s = min(30, 0.5 * 2.0 ** min(failures - 1, 60))
    delay_s = Backoff(first_s=0.5, cap_s=30, random=random.Random(seed)).delay_s(failures)
    assert full_s / 2 <= delay_s <= full_s
