"""What the forms of a build cost here, measured cell by cell, and how each of them serves best."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.errors import ArtifactRefused
from serving.settings import seconds
from serving.variants import choosing, gate, profiling
from serving.variants.choosing import Cell, Took
from serving.variants.forms import Form, fixed_batch
from serving.variants.gate import Rule
from serving.variants.profiling import Machine
from serving.variants.recipe import Asked
from serving.variants.stages import StageFailed
from serving.variants.workshop import Workshop

STEPS = 5.0
"""Usual ones that it takes as long as."""


class Measuring:
    """Of the forms of one build."""

    def __init__(self, workshop: Workshop, asked: Asked, rule: Rule | None, dataset: Path | None) -> None:
        self.known: dict[Cell, Took] = {}
        self._workshop = workshop
        self._asked = asked
        self._rule = rule
        self._data = {"dataset": dataset} if dataset else {}
        self._aim = choosing.Aim(profiling.SIZES, 1)

    def measure(self, origin: Form, forms: Sequence[Form]) -> None:
        """Of forms that were named everything on one thread; of what a search found, what a choice needs.

        What cannot be measured is refused; ArtifactRefused or StageFailed where that is the source.
        """
        fixed = fixed_batch(forms)
        self._aim = choosing.Aim(self._sizes(fixed), len(os.sched_getaffinity(0)), self.target_ms)
        is_searched = any(variant.search is not None for variant in self._asked.variants)

        def alive(choosable: bool) -> dict[str, Form]:
            """Those that can be measured, or of these what may be chosen."""
            found = {form.name: form for form in forms if not form.refused}
            rule = self._rule
            if not choosable or rule is None:
                return found
            return {
                name: form
                for name, form in found.items()
                if form is origin or not (form.quality and gate.lacking(form.quality, rule))
            }

        cells: Sequence[Cell] = ()
        if not is_searched:
            batches = profiling.SIZES if fixed is None else (fixed,)
            cells = [Cell(name, 1, size) for name in alive(choosable=False) for size in batches]
        while cells or (cells := choosing.following(list(alive(choosable=True)), self.known, self._aim)):
            named = alive(choosable=False)
            self._profile(origin, [(named[cell.form], cell) for cell in cells])
            cells = ()
        for form in alive(choosable=is_searched).values():
            own = {cell.batch: took for cell, took in self.known.items() if (cell.form, cell.threads) == (form.name, 1)}
            form.cost = profiling.cost(own)
            self._weigh(form)

    def _profile(self, origin: Form, asked: Sequence[tuple[Form, Cell]]) -> None:
        """Measures cells, side by side what has the same number of threads; who cannot be measured is refused."""

        def measured(these: Sequence[Form], threads: int, batches: Sequence[int]) -> None:
            inputs = {f"model.{form.name}": form.model for form in these} | self._data
            told = {"threads": threads, "batches": batches}
            steps = 0.0 if self.known else STEPS
            done = self._workshop.made("", "profile", told, inputs, label="measure", also=_here(threads), steps=steps)
            for form in these:
                for size, took in done.facts[form.name].items():
                    self.known[Cell(form.name, threads, int(size))] = Took(**took)

        for threads in sorted({cell.threads for _, cell in asked}):
            batches = sorted({cell.batch for _, cell in asked if cell.threads == threads})
            these = list({cell.form: form for form, cell in asked if cell.threads == threads}.values())
            try:
                measured(these, threads, batches)
            except (ArtifactRefused, StageFailed):
                if these == [origin]:
                    raise
                # One that cannot be measured must not take the others with it.
                for form in these:
                    try:
                        measured([form], threads, batches)
                    except (ArtifactRefused, StageFailed) as error:
                        if form is origin:
                            raise
                        form.refused = str(error)
                if alive := [form for form in these if not form.refused]:
                    measured(alive, threads, batches)

    def _weigh(self, form: Form) -> None:
        inputs: Mapping[str, Path] = {"model": form.model} | self._data
        try:
            found = self._workshop.made(form.name, "weigh", {"threads": 1}, inputs, also=_here(1)).facts
            form.memory_bytes, form.load_s = found["memory_bytes"], found["load_s"]
        except (ArtifactRefused, StageFailed) as error:
            form.refused = str(error)

    def _sizes(self, fixed: int | None) -> tuple[int, ...]:
        """Batch sizes that the objective may use."""
        if fixed is not None:
            return (fixed,)
        most = 1 if self._asked.objective.minimize == "latency" else self._asked.max_batch
        return tuple(size for size in profiling.SIZES if size <= most)

    @property
    def target_ms(self) -> float | None:
        """Longest time of a call, where the objective has one."""
        latency = self._asked.objective.latency
        return None if latency is None else 1e3 * seconds(latency.target)

    def counted(self, form: Form) -> float:
        """What the objective counts: bytes, or CPU ms of a sample in the best cell."""
        if self._asked.objective.minimize == "size":
            return float(form.bytes)
        return choosing.cost(self.cell(form), self.known)

    def cell(self, form: Form) -> Cell:
        """How it serves best; where no way meets the target, how it comes nearest."""
        return choosing.best(self.known, self._aim, [form.name]) or choosing.quickest(self.known, [form.name])

    def meets(self, form: Form) -> bool:
        """Whether it meets the target."""
        cell = self.cell(form)
        return self._aim.counts(cell, self.known[cell])

    def call_ms(self, form: Form) -> float:
        """How long its call takes."""
        return choosing.call_ms(self.cell(form), self.known)


def _here(threads: int) -> str:
    return json.dumps(dataclasses.asdict(Machine.here(threads)), sort_keys=True)
