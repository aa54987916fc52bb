"""The difference of two arms."""

from __future__ import annotations

import numpy as np
import pytest

from operators.api.outcomes import Sums
from operators.planning.experiments import effect


def summed(y: np.ndarray, x: np.ndarray | None = None) -> Sums:
    x = np.zeros_like(y) if x is None else x
    return Sums(len(y), y.sum(), (y * y).sum(), x.sum(), (x * x).sum(), (x * y).sum())


def test_nothing_is_said_of_few_units() -> None:
    few, many = summed(np.ones(effect.ENOUGH - 1)), summed(np.ones(1_000))
    assert effect.effect(few, many, 0.05) is None
    assert effect.effect(many, few, 0.05) is None


def test_the_truth_lies_in_the_interval_at_every_look_at_once() -> None:
    random, missed = np.random.default_rng(3), 0
    for _ in range(200):
        y = random.normal((1.0, 1.1), 2.0, size=(6_000, 2))
        sums, squared = y.cumsum(axis=0), (y * y).cumsum(axis=0)
        for n in range(200, 6_001, 200):
            control, treatment = (Sums(n, sums[n - 1, arm], squared[n - 1, arm]) for arm in (0, 1))
            found = effect.effect(control, treatment, 0.05)
            assert found is not None
            if not found.low <= 0.1 <= found.high:
                missed += 1
                break
    assert missed <= 10


def test_no_unit_more_is_needed_than_four_times_those_of_a_test_that_may_look_once() -> None:
    once = 1.96 / np.sqrt(effect.NARROWEST_AT)
    assert effect.half_width(1.0, effect.NARROWEST_AT, 0.05) < 2 * once


def test_what_was_known_beforehand_is_taken_out() -> None:
    random = np.random.default_rng(6)
    x = random.normal(10, 3, size=(2, 1_000))
    y = 2 * x + random.normal(0, 1, size=(2, 1_000))
    y[1] += 0.5
    plain = effect.effect(summed(y[0]), summed(y[1]), 0.05)
    known = effect.effect(summed(y[0], x[0]), summed(y[1], x[1]), 0.05)
    assert plain is not None
    assert known is not None
    assert known.high - known.low < 0.2 * (plain.high - plain.low)
    assert known.is_found
    assert known.low < 0.5 < known.high
    assert known.explained == pytest.approx(36 / 37, abs=0.01)


def test_arms_that_never_differ_are_no_error() -> None:
    same = summed(np.ones(500))
    assert effect.effect(same, same, 0.05) == effect.Effect(0, 0, 0, 0)
