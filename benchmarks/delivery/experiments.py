"""Does an experiment say something false, when it is looked at all the time, and what does a bandit save?

- *sample ratio*: units assigned as asked, and with a skew of two points; the chance of an alarm, and after how many.
- *effect*: two arms alike, and one that is worth more; looked at every 200 units. How often the interval ever misses
  the truth, how often a difference is found, beside a t-test that is asked as often.
- *bandit*: two arms of which one wins more often. Rewards lost against always giving the better arm, beside a fixed
  split in halves, and how often the interval of the difference ever misses the truth although shares followed rewards.

Whatever is drawn is decided on by the planner's own functions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks import origin
from operators.api.outcomes import Sums
from operators.planning.experiments import assignment, bandit, effect

_ALPHA = 0.05
_UNITS, _LOOK = 20_000, 200
"""Of both arms together, and how many come between two looks."""
_INTERVALS, _INTERVAL = 100, 200
"""Of a bandit: how often its shares move, and the units between."""
_BOOL = NDArray[np.bool_]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--runs", type=int, default=2000, help="of each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Draw, write ``experiments.json``; 1 if more is said that is false than is promised."""
    random = np.random.default_rng(options.seed)
    rows = [
        *(_sample_ratio(name, share, options.runs, random) for name, share in (("null", 0.5), ("skew", 0.52))),
        *(_effect(name, worth, options.runs, random) for name, worth in (("null", 0.0), ("shift", 0.1))),
        *(
            _bandit(name, chances, options.runs, random)
            for name, chances in (("null", (0.1, 0.1)), ("shift", (0.1, 0.13)))
        ),
    ]
    results: dict[str, Any] = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": origin.described(),
        "alpha": _ALPHA,
        "units": _UNITS,
        "runs": options.runs,
        "seed": options.seed,
        "rows": rows,
    }
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()), file=sys.stderr)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "experiments.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(_holds(row, options.runs) for row in rows) else 1


def _holds(row: Mapping[str, Any], runs: int) -> bool:
    """Whether what was seen is what is promised, but for chance (three standard deviations)."""
    promised = {"falseAlarm": 1 / assignment.ALARM, "missed": _ALPHA}
    return all(
        row[name] <= p + 3 * math.sqrt(p * (1 - p) / runs) for name, p in promised.items() if row.get(name) is not None
    )


def _sample_ratio(name: str, share: float, runs: int, random: np.random.Generator) -> dict[str, Any]:
    first = random.binomial(_LOOK, share, size=(runs, _UNITS // _LOOK)).cumsum(axis=1)
    looks = _LOOK * np.arange(1, _UNITS // _LOOK + 1)
    alarm = np.zeros(first.shape, bool)
    for (at, place), x in np.ndenumerate(first):
        alarm[at, place] = assignment.is_skewed((int(x), int(looks[place] - x)), (0.5, 0.5))
    rate = float(alarm.any(axis=1).mean())
    return {
        "name": "sample ratio",
        "kind": name,
        "falseAlarm": rate if share == 0.5 else None,
        "found": None if share == 0.5 else rate,
        "medianUnits": _median_first(alarm, looks),
    }


def _effect(name: str, worth: float, runs: int, random: np.random.Generator) -> dict[str, Any]:
    """Rewards are exponential, far from normal."""
    looks = np.arange(_LOOK, _UNITS + 1, _LOOK)
    missed, found, tested = (np.zeros((runs, len(looks)), bool) for _ in range(3))
    for at in range(runs):
        y = random.exponential(1.0, size=(2, _UNITS // 2))
        y[1] += worth
        sums, squares = y.cumsum(axis=1), (y * y).cumsum(axis=1)
        for place, units in enumerate(looks):
            n = int(units) // 2
            arms = [Sums(n, float(sums[arm, n - 1]), float(squares[arm, n - 1])) for arm in (0, 1)]
            seen = effect.effect(arms[0], arms[1], _ALPHA)
            if seen is not None:
                missed[at, place] = not seen.low <= worth <= seen.high
                found[at, place] = seen.is_found
            error = math.sqrt(sum(arm.variance() / n for arm in arms))
            tested[at, place] = abs(arms[1].mean - arms[0].mean) > stats.norm.ppf(1 - _ALPHA / 2) * error
    return {
        "name": "effect",
        "kind": name,
        "missed": float(missed.any(axis=1).mean()),
        "found": float(found.any(axis=1).mean()),
        "medianUnits": _median_first(found, looks),
        "foundByTTest": float(tested.any(axis=1).mean()),
    }


def _bandit(name: str, chances: tuple[float, float], runs: int, random: np.random.Generator) -> dict[str, Any]:
    lost, even, missed = np.zeros(runs), np.zeros(runs), np.zeros(runs, bool)
    truth = chances[1] - chances[0]
    for at in range(runs):
        shares: tuple[float, ...] = (0.5, 0.5)
        known, told, units = [Sums(), Sums()], [Sums(), Sums()], 0
        for _ in range(_INTERVALS):
            counts = random.multinomial(_INTERVAL, shares)
            for arm, (count, chance) in enumerate(zip(counts, chances, strict=True)):
                wins = int(random.binomial(count, chance))
                new = Sums(int(count), wins, wins)
                known[arm] = known[arm].times(bandit.KEPT) + new
                told[arm] += bandit.weighted(new, shares[arm])
            units += _INTERVAL
            lost[at] += counts[0] * truth
            even[at] += _INTERVAL * truth / 2
            seen = bandit.difference(told[0], told[1], units, _ALPHA)
            missed[at] |= seen is not None and not seen.low <= truth <= seen.high
            shares = bandit.shares(known, shares, binary=True, seed=int(random.integers(2**32)))
    return {
        "name": "bandit",
        "kind": name,
        "missed": float(missed.mean()),
        "regret": round(float(lost.mean()), 1),
        "regretOfFixedSplit": round(float(even.mean()), 1),
    }


def _median_first(found: _BOOL, looks: NDArray[np.int64]) -> int | None:
    """Units at which half of the runs have found it; None where fewer ever do."""
    first = np.where(found.any(axis=1), looks[found.argmax(axis=1)], np.inf)
    median = float(np.median(first))
    return int(median) if math.isfinite(median) else None
