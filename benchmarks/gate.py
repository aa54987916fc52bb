"""How often does the gate let through a variant that is worse than allowed, and how often one that is as good?

Each trial draws what a variant loses and gains on as many samples as the shipped examples have, in slices of their
sizes, and asks the gate as a build does. *Worse*: the true drop is the budget and a hair more, overall or in one slice
alone. *Equal*: losses and gains are as likely as each other. ``churn`` is the share of samples that only one of source
and variant has right, beyond what the drop itself takes. *Equal, samples enough*: the same with as many samples as the
gate says it takes, of which at least nine in ten trials must be accepted.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import origin
from serving.variants import gate, intervals
from serving.variants.gate import Candidate, Quality, Rule, Slice

_ALPHA = 0.05
_BUDGET, _SLICE_BUDGET = 0.01, 0.05
_CHURNS = (0.0, 0.005, 0.01, 0.02)
_EXAMPLES = {"digits": Path("examples/digits/eval.npz")}
_HAIR = 1e-6
_RULE = Rule(_BUDGET, _ALPHA, _SLICE_BUDGET, "label")
_ENOUGH = "equal, samples enough"


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of a variant: its drop in each slice, and how much else it changes."""

    name: str
    drops: tuple[float, ...]
    churn: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--trials", type=int, default=2000, help="of each truth (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Draw, write ``gate.json``; 1 if the gate lets through more than it says."""
    rows = [
        _row(example, truth, sizes, options.trials)
        for example, path in _EXAMPLES.items()
        for truth, sizes in _truths(_sizes(path))
    ]
    results: dict[str, Any] = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": origin.described(),
        "alpha": _ALPHA,
        "rows": rows,
        "targets": {
            "worse is accepted at most alpha": all(row["holds"] for row in rows if row["truth"].startswith("worse")),
            "equal is accepted nine times in ten with the samples that the gate asks for": all(
                row["holds"] for row in rows if row["truth"] == _ENOUGH
            ),
        },
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "gate.json").write_text(json.dumps(results, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['example']:8} {row['truth']:22} churn {row['churn']:.3f}, {row['samples']:5} samples: "
            f"accepted {row['accepted']:.3f}",
            file=sys.stderr,
        )
    return 0 if all(results["targets"].values()) else 1


def _sizes(dataset: Path) -> tuple[int, ...]:
    """Samples of each class."""
    with np.load(dataset, allow_pickle=False) as arrays:
        return tuple(int(count) for count in np.bincount(arrays["y"]))


def _truths(sizes: tuple[int, ...]) -> list[tuple[Truth, tuple[int, ...]]]:
    """What may be true, and the samples of each slice on which the gate looks at it."""
    overall, one = _BUDGET + _HAIR, _SLICE_BUDGET + _HAIR
    found = []
    for churn in _CHURNS:
        equal = (0.0,) * len(sizes)
        found.append((Truth("equal", equal, churn), sizes))
        found.append((Truth(_ENOUGH, equal, churn), _enough(sizes, churn)))
        found.append((Truth("worse overall", (overall,) * len(sizes), churn), sizes))
        # What the slice loses the others gain, so that only the slice shows it.
        others = -one * sizes[0] / sum(sizes[1:])
        found.append((Truth("worse in a slice", (one, *[others] * (len(sizes) - 1)), churn), sizes))
    return found


def _enough(sizes: tuple[int, ...], churn: float) -> tuple[int, ...]:
    """As many as the gate asks for, each slice alike."""
    slices = tuple(Slice(str(name), size, 0.0, 0.0) for name, size in enumerate(sizes))
    needed = gate.samples_needed(Quality(0.99, 0.0, 0.0, sum(sizes), 0.0, churn, slices), _RULE)
    return (max(needed.each_slice or 0, math.ceil(needed.overall / len(sizes))),) * len(sizes)


def _row(example: str, truth: Truth, sizes: tuple[int, ...], trials: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    accepted = 0
    for _ in range(trials):
        counts = []
        for size, drop in zip(sizes, truth.drops, strict=True):
            lost, gained = truth.churn / 2 + max(drop, 0.0), truth.churn / 2 + max(-drop, 0.0)
            b, c, _ = random.multinomial(size, [lost, gained, 1 - lost - gained])
            counts.append((int(b), int(c), size))
        accepted += _accepted(tuple(counts))
    # A gate that just keeps its word is outside of these in one of a thousand such runs.
    most = int(stats.binom.isf(0.001, trials, _ALPHA))
    least = int(stats.binom.ppf(0.001, trials, gate.POWER))
    holds = {"equal": True, _ENOUGH: accepted >= least}
    return {
        "example": example,
        "truth": truth.name,
        "churn": truth.churn,
        "samples": sum(sizes),
        "leastInSlice": min(sizes),
        "trials": trials,
        "accepted": accepted / trials,
        "holds": holds.get(truth.name, accepted <= most),
    }


def _accepted(counts: tuple[tuple[int, int, int], ...]) -> bool:
    lost, gained, samples = (sum(column) for column in zip(*counts, strict=True))
    slices = tuple(Slice(str(name), n, (b - c) / n, _bound(b, c, n)) for name, (b, c, n) in enumerate(counts))
    quality = Quality(0.99, (lost - gained) / samples, _bound(lost, gained, samples), samples, 0.0, 0.0, slices)
    source = Candidate("source", Quality(0.99, 0.0, 0.0, samples, 0.0), 2.0)
    return gate.judge(source, [Candidate("variant", quality, 1.0)], _RULE, "CPU time")["variant"].accepted


@functools.cache
def _bound(lost: int, gained: int, samples: int) -> float:
    return intervals.paired_drop(lost, gained, samples, _ALPHA)
