"""Shares that follow rewards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.outcomes import Sums
from operators.planning.experiments import bandit

ARMS = st.lists(
    st.tuples(st.integers(0, 500), st.floats(0, 1)).map(lambda arm: Sums(arm[0], arm[0] * arm[1], arm[0] * arm[1])),
    min_size=2,
    max_size=4,
)


@given(ARMS, st.booleans(), st.integers(0, 2**32))
def test_shares_add_up_move_a_step_at_most_and_never_leave_an_arm_unknown(
    arms: list[Sums], binary: bool, seed: int
) -> None:
    before = tuple(1 / len(arms) for _ in arms)
    after = bandit.shares(arms, before, binary=binary, seed=seed)
    assert sum(after) == pytest.approx(1)
    assert min(after) >= min(bandit.EXPLORE / len(arms), *before) - 1e-9
    assert max(abs(new - old) for new, old in zip(after, before, strict=True)) <= bandit.STEP + 1e-9
    assert after == bandit.shares(arms, before, binary=binary, seed=seed)


def test_shares_go_to_the_better_arm_and_stop_where_the_other_is_still_tried() -> None:
    arms, shares = [Sums(1_000, 50, 50), Sums(1_000, 120, 120)], (0.5, 0.5)
    for seed in range(10):
        shares = bandit.shares(arms, shares, binary=True, seed=seed)  # type: ignore[assignment]
    assert shares == pytest.approx((bandit.EXPLORE / 2, 1 - bandit.EXPLORE / 2))


def test_an_arm_that_was_taken_out_stays_out() -> None:
    left = bandit.without((0.5, 0.3, 0.2), 1)
    assert left == pytest.approx((5 / 7, 0, 2 / 7))
    arms = [Sums(100, 10, 10), Sums(100, 90, 90), Sums(100, 10, 10)]
    assert bandit.shares(arms, left, binary=True, seed=1)[1] == 0
    with pytest.raises(ValueError, match="there is no other"):
        bandit.without((0.0, 1.0), 1)


def test_the_worth_of_arms_is_told_right_although_shares_followed_their_rewards() -> None:
    random, missed = np.random.default_rng(11), 0
    for run in range(30):
        shares: tuple[float, ...] = (0.5, 0.5)
        known, told, units = [Sums(), Sums()], [Sums(), Sums()], 0.0
        outside = False
        for tick in range(30):
            counts = random.multinomial(400, shares)
            for arm, (count, chance) in enumerate(zip(counts, (0.10, 0.14), strict=True)):
                wins = int(random.binomial(count, chance))
                new = Sums(int(count), wins, wins)
                known[arm] = known[arm].times(bandit.KEPT) + new
                told[arm] += bandit.weighted(new, shares[arm])
            units += 400
            found = bandit.difference(told[0], told[1], units, 0.05)
            outside |= found is not None and not found.low <= 0.04 <= found.high
            shares = bandit.shares(known, shares, binary=True, seed=1_000 * run + tick)
        missed += outside
    assert missed <= 4
