"""From samples to ratios: pure.

A round measures every contestant once, so ours and a peer's of one round saw the same machine. Their ratio is taken
in each round; what is reported is the median of these with the smallest and the largest. A round counts as disturbed
where processes that are no part of it used more than ``CONTENDED`` of a processor; such rounds are left out where
three quiet ones remain.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.workloads import FIGURES, TARGETS, Target

CONTENDED = 0.15
_ENOUGH = 3


@dataclass(frozen=True)
class Sample:
    """One measurement of one contestant."""

    workload: str
    contestant: str
    round: int
    figures: Mapping[str, float]
    foreign: float
    """Processors that others used meanwhile."""


@dataclass(frozen=True)
class Comparison:
    """One figure of ours and of a peer: medians, and the median of their ratios with its range."""

    ours: float
    peer: float
    ratio: float
    low: float
    high: float
    target: float | None = None
    met: bool | None = None


@dataclass(frozen=True)
class Row:
    """Ours and one peer in one workload."""

    workload: str
    peer: str
    rounds: int
    disturbed: int
    """Rounds among them in which the machine was not ours alone."""
    figures: Mapping[str, Comparison]


def rows(samples: Iterable[Sample], ours: str) -> list[Row]:
    """Every workload and peer, in the order of their first sample."""
    by_place: dict[tuple[str, str], dict[int, Sample]] = {}
    for sample in samples:
        by_place.setdefault((sample.workload, sample.contestant), {})[sample.round] = sample
    found = []
    for (workload, peer), theirs in by_place.items():
        mine = by_place.get((workload, ours), {})
        pairs = [(mine[number], theirs[number]) for number in sorted(mine.keys() & theirs.keys())]
        if peer != ours and pairs:
            found.append(_row(workload, peer, pairs))
    return found


def _row(workload: str, peer: str, pairs: Sequence[tuple[Sample, Sample]]) -> Row:
    quiet = [pair for pair in pairs if max(sample.foreign for sample in pair) <= CONTENDED]
    used = quiet if len(quiet) >= _ENOUGH else pairs
    figures = {}
    for figure in used[0][0].figures:
        target = next((t for t in TARGETS if (t.workload, t.figure, t.peer) == (workload, figure, peer)), None)
        figures[figure] = _comparison(figure, target, [(a.figures[figure], b.figures[figure]) for a, b in used])
    return Row(workload, peer, len(used), sum(pair not in quiet for pair in used), figures)


def _comparison(name: str, target: Target | None, values: Sequence[tuple[float, float]]) -> Comparison:
    figure = FIGURES[name]
    ratios = [theirs / ours if figure.peer_to_ours else ours / theirs for ours, theirs in values]
    ratio = statistics.median(ratios)
    met = None if target is None else (ratio >= target.bound if figure.at_least else ratio <= target.bound)
    return Comparison(
        ours=statistics.median(ours for ours, _ in values),
        peer=statistics.median(theirs for _, theirs in values),
        ratio=ratio,
        low=min(ratios),
        high=max(ratios),
        target=None if target is None else target.bound,
        met=met,
    )
