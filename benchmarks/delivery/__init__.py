"""How often is a good revision rolled back and a bad one promoted, and how soon is a bad one found?

Rollouts are drawn at random and played to the planner's own analysis, with the defaults of ``analysis: {}``. *null*
rows have candidates that are as good as the stable revision, *shift* rows such that are worse by exactly what is not
tolerated, so a promotion of them is as wrong and as likely as it can be. ``predictedDetectionS`` is the median of what
the status had published before the candidate got its first request. ``rules`` says how others decide on the same runs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import origin
from benchmarks.delivery import drawing, rules, simulation
from benchmarks.delivery.scenarios import SCENARIOS
from benchmarks.delivery.traffic import CELLS, Floats, Ints, Scenario, Side, Traffic, draw
from operators.api.model import Analysis

_RUNS = 2000
_OFF = 0.2
"""How far the median may be from what was published."""
_SLOW_US = 160_000
"""What the other rules call slow: 4 % of the stable's requests."""
_LIMITS = {"errors": 0.01, "latency": 0.06}
"""Shares of bad answers that the thresholds allow."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--runs", type=int, default=_RUNS, help="of each row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--only", default="", help="rows whose name contains this (default: all)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: %(default)s)")
    parser.add_argument("--results", type=Path, help="folder for delivery.json and delivery.svg (default: not written)")


def run(options: argparse.Namespace) -> int:
    """Play all rows; 0 if every promise is kept."""
    defaults = Analysis()
    rows = []
    for place, scenario in enumerate(SCENARIOS):
        if options.only in scenario.name:
            rows.append(_row(scenario, options.runs, np.random.default_rng([options.seed, place]), defaults))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    results: dict[str, Any] = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": origin.described(),
        "runs": options.runs,
        "seed": options.seed,
        "beta": defaults.beta,
        "rows": rows,
        "targets": _targets(rows, options.runs),
    }
    if options.output == "json":
        print(json.dumps(results, indent=1, ensure_ascii=False))
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "delivery.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        drawing.plot(rows, defaults.alpha, options.results / "delivery.svg")
    return 0 if all(results["targets"].values()) else 1


def _row(scenario: Scenario, runs: int, random: np.random.Generator, defaults: Analysis) -> dict[str, Any]:
    began = time.process_time()
    played, minutes = [], []
    for _ in range(runs):
        traffic = draw(scenario, random)
        played.append(simulation.play(scenario, traffic))
        minutes.append(_minutes(traffic))
    is_null = scenario.kind == "null"
    found = np.array([one.rolled_back_s for one in played])
    wrong = [one.promoted_s < one.rolled_back_s for one in played]
    good = [one.promoted_s for one in played]
    return {
        "name": scenario.name,
        "kind": scenario.kind,
        "alpha": defaults.alpha,
        "beta": defaults.beta,
        "falseRollback": float(np.isfinite(found).mean()) if is_null else 0.0,
        "wrongPromotion": 0.0 if is_null else float(np.mean(wrong)),
        "medianDetectionS": None if is_null else _median(found),
        "predictedDetectionS": None if is_null else _median([one.predicted_s for one in played]),
        "found": None if is_null else float(np.isfinite(found).mean()),
        "promotedRightly": float(np.isfinite(good).mean()) if is_null else None,
        "medianPromotionS": _median(good) if is_null else None,
        "rules": _others(scenario, minutes),
        "cpuS": round(time.process_time() - began, 1),
    }


def _median(times: Sequence[float] | Floats) -> float | None:
    """None where half of them never came."""
    median = float(np.median(np.asarray(times)))
    return round(median, 1) if math.isfinite(median) else None


def _minutes(traffic: Traffic) -> tuple[Ints, Ints, Ints, Ints]:
    """By minute: the candidate's requests and bad answers, and the stable's."""
    found = []
    for side in (traffic.candidate, traffic.stable):
        answered, bad = _bad(side)
        of_a_minute = (-1, 60 // traffic.tick_s)
        found += [one[traffic.starts :].reshape(of_a_minute).sum(axis=1) for one in (answered, bad)]
    n, x, m, y = found
    return n, x, m, y


def _bad(side: Side) -> tuple[Ints, Ints]:
    if not side.latency.shape[2]:
        return side.answered.sum(axis=1), side.failed.sum(axis=1)
    cells = side.latency.sum(axis=1)
    return cells.sum(axis=1), cells[:, CELLS.index(_SLOW_US) :].sum(axis=1)


def _others(scenario: Scenario, minutes: Sequence[tuple[Ints, Ints, Ints, Ints]]) -> dict[str, Any]:
    n, x, m, y = (np.stack(column) for column in zip(*minutes, strict=True))
    limit = _LIMITS["errors" if scenario.slower is None else "latency"]
    found = {name: rule(n, x, m, y, limit) for name, rule in rules.RULES.items()}
    return {
        name: {"rolledBack": float(np.isfinite(times).mean()), "medianS": _median(times)}
        for name, times in found.items()
    }


def _targets(rows: Sequence[Mapping[str, Any]], runs: int) -> dict[str, bool]:
    shifts = [row for row in rows if row["kind"] == "shift"]
    return {
        "good ones are rolled back at most alpha": all(row["falseRollback"] <= row["alpha"] for row in rows),
        "bad ones are promoted at most beta": all(row["wrongPromotion"] <= row["beta"] for row in rows),
        "bad ones are found when it was published": all(_as_published(row) for row in shifts),
    }


def _as_published(row: Mapping[str, Any]) -> bool:
    found, published = row["medianDetectionS"], row["predictedDetectionS"]
    return found is not None and published is not None and abs(found / published - 1) <= _OFF


def _line(row: Mapping[str, Any]) -> str:
    if row["kind"] == "null":
        said = f"rolled back {row['falseRollback']:.4f}"
        said += f", promoted {row['promotedRightly']:.3f} ({row['medianPromotionS']} s)"
    else:
        said = f"promoted {row['wrongPromotion']:.4f}, found in {row['medianDetectionS']} s"
        said += f" (published {row['predictedDetectionS']} s)"
    others = ", ".join(f"{name} {one['rolledBack']:.3f} ({one['medianS']} s)" for name, one in row["rules"].items())
    return f"{row['name']:34} {said}; {others}; {row['cpuS']} s of CPU"
