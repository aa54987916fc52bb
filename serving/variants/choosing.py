"""Which form, batch size and number of threads serve best, and what to measure to know; pure.

A *cell* is one form of a model at one batch size with one number of threads; measuring one is what a search is paid
in. An exhaustive search measures every cell. Here a form is measured at the two ends, one sample and the largest
batch, on one thread: between them the cost of a call is close to a line, so the cost of a sample falls with the batch
or hardly changes. Only forms that come within ``NEAR`` of the best are looked at more closely: from their best batch
size to its neighbours, for as long as that gets better. The best of all is tried on all cores.

CPU time counts, as everywhere. A latency target bounds the time of one call: CPU time on one thread; on several, whose
sum says nothing of how long they took, the wall's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

NEAR = 1.5
"""Forms that cost so much more than the best may yet become it: at another batch size, or because what else the machine
did fell on one of two measurements (seen: 1.5 times at one size, where its neighbours agreed)."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is measured at once."""

    form: str
    threads: int
    batch: int


@dataclasses.dataclass(frozen=True)
class Took:
    """What a call took."""

    cpu_ms: float
    wall_ms: float


@dataclasses.dataclass(frozen=True)
class Aim:
    """What is looked for: the least CPU time of a sample."""

    sizes: tuple[int, ...]
    """Batch sizes that may be used, the smallest first."""
    cores: int
    target_ms: float | None = None
    """Longest time of a call."""

    def counts(self, cell: Cell, took: Took) -> bool:
        """Whether it may be used."""
        if cell.batch not in self.sizes:
            return False
        return self.target_ms is None or _of_call(cell, took) <= self.target_ms


Known = Mapping[Cell, Took]


def _of_call(cell: Cell, took: Took) -> float:
    return took.cpu_ms if cell.threads == 1 else took.wall_ms


def call_ms(cell: Cell, known: Known) -> float:
    """How long a call takes."""
    return _of_call(cell, known[cell])


def cost(cell: Cell, known: Known) -> float:
    """CPU ms of a sample."""
    return known[cell].cpu_ms / cell.batch


def best(known: Known, aim: Aim, forms: Collection[str]) -> Cell | None:
    """The cheapest cell of these forms that counts, the one with fewer threads first; None where none does."""
    usable = [cell for cell, took in known.items() if cell.form in forms and aim.counts(cell, took)]
    return min(usable, key=lambda cell: (cost(cell, known), cell.threads), default=None)


def quickest(known: Known, forms: Collection[str]) -> Cell:
    """The cell with the shortest call: what comes nearest to a target that none meets."""
    return min((cell for cell in known if cell.form in forms), key=lambda cell: call_ms(cell, known))


def following(forms: Sequence[str], known: Known, aim: Aim) -> list[Cell]:
    """Cells to be measured next, side by side; none when more would not change what is chosen."""
    ends = sorted({aim.sizes[0], aim.sizes[-1]})
    if probes := [cell for form in forms for size in ends if (cell := Cell(form, 1, size)) not in known]:
        return probes
    bests = {form: found for form in forms if (found := best(known, aim, [form])) is not None}
    if not bests:
        last = Cell(quickest(known, forms).form, aim.cores, aim.sizes[0])
        return [last] if last not in known else []
    least = min(cost(cell, known) for cell in bests.values())
    near = {form: cell for form, cell in bests.items() if cost(cell, known) <= NEAR * least}
    beside = [
        cell
        for form, found in near.items()
        for size in _neighbours(found.batch, aim.sizes)
        if (cell := Cell(form, 1, size)) not in known
    ]
    if beside:
        return beside
    first = min(near.values(), key=lambda cell: (cost(cell, known), cell.threads))
    wide = Cell(first.form, aim.cores, first.batch)
    return [wide] if wide not in known else []


def _neighbours(size: int, sizes: Sequence[int]) -> list[int]:
    place = sizes.index(size)
    return [*sizes[max(place - 1, 0) : place], *sizes[place + 1 : place + 2]]


@dataclasses.dataclass(frozen=True)
class Point:
    """What a form is worth: more quality is better, less of the rest."""

    quality: float
    cost: float
    bytes: int


def frontier(points: Mapping[str, Point]) -> list[str]:
    """Names of those that no other one beats: the Pareto set, the cheapest first. Of equals the first stays."""
    kept: list[str] = []
    for name, one in sorted(points.items(), key=lambda item: (item[1].cost, -item[1].quality, item[1].bytes)):
        if not any(points[other].quality >= one.quality and points[other].bytes <= one.bytes for other in kept):
            kept.append(name)
    return kept
