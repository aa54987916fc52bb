import math

import pytest

from serving.telemetry.sampling import Shares


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_a_share_of_requests_is_chosen(p: float) -> None:
    shares = Shares(0.0, p)

    requests = sum(shares.unheard() + 1 for _ in range(10_000))

    assert abs(requests - 10_000 / p) < 8 * (10_000 * (1 - p)) ** 0.5 / p
    assert {tuple(shares.of_one()) for _ in range(1000)} == {(False, True)}


def test_none_and_all_are_shares_too() -> None:
    assert Shares(0, 0).unheard() == math.inf
    assert {Shares(1, 0.5).unheard() for _ in range(1000)} == {0}


def test_the_smaller_share_is_part_of_the_larger_one() -> None:
    shares = Shares(0.2, 0.05, 0.2)

    chosen = [shares.of_one() for _ in range(10_000)]

    assert all(one[0] and one[2] for one in chosen)
    assert abs(sum(one[1] for one in chosen) - 2500) < 8 * (10_000 * 0.25 * 0.75) ** 0.5
