"""How others decide, on the same traffic: each looks once a minute at the two revisions' shares of bad answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.delivery.traffic import Floats, Ints

ALPHA = 0.01
_FAILURES = 3
_FIRST_MINUTE = 10
"""Mann-Whitney compares minutes, so it needs some."""


def thresholds(candidate: Ints, candidate_bad: Ints, stable: Ints, stable_bad: Ints, limit: float) -> Floats:
    """Argo Rollouts' ``failureLimit``: rolled back at the third minute in which more than ``limit`` was bad."""
    over = np.cumsum(candidate_bad > limit * candidate, axis=1) >= _FAILURES
    return _first(over)


def fisher(candidate: Ints, candidate_bad: Ints, stable: Ints, stable_bad: Ints, limit: float) -> Floats:
    """Fisher's exact test, one-sided, of all that was counted so far, again every minute."""
    n, x, m, y = (np.cumsum(one, axis=1) for one in (candidate, candidate_bad, stable, stable_bad))
    return _first(stats.hypergeom.sf(x - 1, n + m, x + y, n) < ALPHA)


def mann_whitney(candidate: Ints, candidate_bad: Ints, stable: Ints, stable_bad: Ints, limit: float) -> Floats:
    """Kayenta's test, one-sided, of all minutes so far, again every minute from the tenth on."""
    theirs, ours = candidate_bad / np.maximum(candidate, 1), stable_bad / np.maximum(stable, 1)
    found: NDArray[np.bool_] = np.zeros(theirs.shape, bool)
    for minute in range(_FIRST_MINUTE, theirs.shape[1] + 1):
        test = stats.mannwhitneyu(
            theirs[:, :minute], ours[:, :minute], alternative="greater", axis=1, method="asymptotic"
        )
        found[:, minute - 1] = np.nan_to_num(test.pvalue, nan=1.0) < ALPHA
    return _first(found)


RULES: Mapping[str, Callable[[Ints, Ints, Ints, Ints, float], Floats]] = {
    "thresholds": thresholds,
    "fisher": fisher,
    "mannWhitney": mann_whitney,
}
"""Each gives the second of the rollback of each run, infinite where there is none, from counts by run and minute."""


def _first(found: NDArray[np.bool_]) -> Floats:
    return np.where(found.any(axis=1), (found.argmax(axis=1) + 1) * 60.0, np.inf)
