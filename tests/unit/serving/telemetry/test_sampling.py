import pytest

from serving.telemetry.sampling import Share


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_a_share_of_requests_is_chosen(p: float) -> None:
    share = Share(p)

    chosen = sum(share.passed(1) for _ in range(100_000))

    assert abs(chosen - 100_000 * p) < 8 * (100_000 * p * (1 - p)) ** 0.5


def test_none_and_all_are_shares_too() -> None:
    none, every = Share(0), Share(1)

    assert not any(none.passed(1) for _ in range(1000))
    assert all(every.passed(1) for _ in range(1000))


def test_requests_that_pass_together_choose_as_they_would_one_by_one() -> None:
    share = Share(0.1)
    chosen = 0
    for _ in range(10_000):
        before = share.unheard
        assert not share.passed(before)
        assert share.unheard == 0
        chosen += share.passed(1)

    assert chosen == 10_000
