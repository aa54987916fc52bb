"""A whole build: the source fetched, every variant made, evaluated, measured beside the others, judged, one chosen.

The result is a function of the document, of what its digests name and of the versions of what makes it, so a build
has a name, and is never made twice. A variant whose pass or evaluation is refused is out, with the reason; the others
go on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from serving.artifacts import storage
from serving.engines import cpu
from serving.errors import ArtifactRefused, InvalidInput
from serving.settings import seconds
from serving.variants import (
    evaluation,
    gate,
    lowering,
    measuring,
    metrics,
    page,
    recipe,
    search,
    sources,
    stages,
    workshop,
)
from serving.variants.forms import Form, agree
from serving.variants.gate import Rule
from serving.variants.measuring import Measuring
from serving.variants.passes.base import FILE, file
from serving.variants.recipe import Asked, Lower, Search, Variant
from serving.variants.report import report
from serving.variants.workshop import Progress, Workshop

SOURCE = "source"
"""Name of what every variant is compared with, unless a variant without passes has it already."""
_LEARNING = 10.0
"""As many usual steps are as long as one that trains."""


class Build:
    """One build; ``run`` makes it."""

    def __init__(
        self,
        asked: Asked,
        folder: Path,
        limits: stages.Limits,
        told: Callable[[Progress], None],
        access: storage.Access | None = None,
    ) -> None:
        if (said := asked.evaluation) is not None and metrics.named(said.metric).has_points and said.max_drop > 1:
            raise InvalidInput(
                f"evaluation.maxDrop {said.max_drop:g} is more than {said.metric} has, which goes from 0 to 1; "
                f"write {said.max_drop / 100:g} for {said.max_drop:g} points"
            )
        self._engines = tuple(engine for engine, package in lowering.PACKAGES.items() if workshop.version(package))
        self._variants = lowering.variants(asked, self._engines)
        made = (Variant(name=SOURCE), *(variant for variant, _ in self._variants))
        steps = measuring.STEPS + sum(_steps(variant) for variant in made)
        self._asked = asked
        self._rule = _rule(asked)
        self._workshop = Workshop(asked, folder, limits, access or storage.Access(), steps, told)
        self.name = recipe.digest(asked, self._workshop.tools)[:24]
        self._folder = folder / "builds" / self.name

    def run(self) -> dict[str, Any]:
        """The report, as it is written to ``builds/NAME/report.json``.

        ArtifactRefused where source or data cannot be used; what is wrong with one variant stands in its place there.
        """
        began = time.monotonic()
        with self._workshop.opened():
            source = self._workshop.fetched("source", self._asked.source)
            evaluated = self._asked.evaluation
            dataset = self._workshop.fetched("dataset", evaluated.dataset) if evaluated else None
            # The source first: what is wrong with it, or with the data, is known before anything is trained.
            variants = [variant for variant, _ in self._variants]
            plain = next((one for one in variants if one.is_source), Variant(name=SOURCE))
            origin = self._made(plain, source, dataset)
            if origin.refused:
                raise ArtifactRefused(f"the source cannot be used: {origin.refused}")
            self._evaluate(origin, origin, dataset)
            forms = [origin] if plain not in variants else []
            for variant, of in self._variants:
                if variant is plain:
                    forms.append(origin)
                elif variant.search is not None:
                    forms += self._searched(variant.name, variant.search, origin, source, dataset)
                else:
                    form = self._judged(origin, self._made(variant, source, dataset), dataset)
                    forms.append(dataclasses.replace(form, searched_by=of))
            measured = Measuring(self._workshop, self._asked, self._rule, dataset)
            measured.measure(origin, forms)
            found: dict[str, Any] = report(self._asked, origin, forms, self._rule, measured)
        found = page.plain(
            {
                "build": self.name,
                **found,
                "tools": self._workshop.tools,
                "seconds": round(time.monotonic() - began, 1),
                "page": str(self._folder / "report.html"),
            }
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "report.html").write_text(page.page(found, self._asked.name))
        (self._folder / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        return found

    def _made(self, variant: Variant, source: Path, dataset: Path | None) -> Form:
        """The variant's passes, one after the other; where one is refused, that is the variant's reason."""
        form, make = Form(variant, source), self._workshop.made
        try:
            if variant.source is not None:
                form.model = self._workshop.fetched("source", variant.source)
            if (read := sources.format_of(form.model)) is not None:
                inputs = {"model": form.model} | ({"dataset": dataset} if dataset else {})
                done = make(form.name, "import", {}, inputs, toolchain=read.toolchain)
                form.made.append(_facts("import", done))
                form.model = done.folder / FILE
            first = make(form.name, "check", {}, {"model": form.model}).facts
            form.digest, form.bytes = first["digest"], first["bytes"]
            form.signature, form.operators = first["signature"], first["operators"]
            if absent := [one.lower.target for one in variant.passes if one.lower and not self._computes(one.lower)]:
                raise ArtifactRefused(f"{absent[0]} is not installed here; install penstock[{absent[0]}]")
            for one in variant.passes:
                inputs = {"model": form.model}
                if one.samples is not None:
                    inputs["samples"] = self._workshop.fetched("samples", one.samples)
                for role, location in one.files.items():
                    inputs[role] = self._workshop.fetched(role, location)
                steps = _LEARNING if one.learns else 1.0
                done = make(form.name, one.kind, one.step, inputs, toolchain=one.toolchain, steps=steps)
                form.model = done.folder / file(one.step)
                form.digest, form.bytes, form.operators = (done.facts[key] for key in ("digest", "bytes", "operators"))
                form.made.append(_facts(one.kind, done))
                if not agree(form.signature, done.facts["signature"]):
                    raise ArtifactRefused(f"{one.kind} changed the model's inputs or outputs; leave it out")
        except (ArtifactRefused, stages.StageFailed) as error:
            form.refused, form.digest = str(error), ""
        return form

    def _computes(self, told: Lower) -> bool:
        """Whether the engine is here; of TensorRT the pass itself says so, by the device."""
        return told.target in self._engines or told.target not in lowering.PACKAGES

    def _searched(self, name: str, asked: Search, origin: Form, source: Path, dataset: Path | None) -> list[Form]:
        """The variants that a search tries, in order; none is begun once its budget is spent."""
        rule = self._rule
        if rule is None or self._asked.evaluation is None:
            raise ArtifactRefused(f"variant {name}: a search needs to know what is good enough; set spec.evaluation")
        calibration = asked.calibration or self._asked.evaluation.dataset
        asked = msgspec.structs.replace(asked, calibration=calibration)
        facts = search.Facts(
            frozenset(origin.operators),
            computes_fp16=False,
            computes_bf16=cpu.computes_bf16(),
            engines=self._engines,
        )
        began, found, tried = time.monotonic(), list[Form](), list[search.Tried]()
        while time.monotonic() - began < seconds(asked.budget):
            variant = search.following(name, asked, facts, tried)
            if variant is None:
                break
            form = self._judged(origin, self._made(variant, source, dataset), dataset)
            keeps = form.quality is not None and not form.refused and not gate.lacking(form.quality, rule)
            form.searched_by = name
            found.append(form)
            excluded = max((len(one.get("excluded", ())) for one in form.made), default=0)
            tried.append(search.Tried(variant, keeps, form.bytes, excluded))
        return found

    def _judged(self, origin: Form, form: Form, dataset: Path | None) -> Form:
        """The variant, evaluated; where that is refused, it is the variant's reason."""
        try:
            if not form.refused:
                self._evaluate(origin, form, dataset)
        except (ArtifactRefused, stages.StageFailed) as error:
            form.refused = str(error)
        return form

    def _evaluate(self, origin: Form, form: Form, dataset: Path | None) -> None:
        asked, rule = self._asked.evaluation, self._rule
        if asked is None or rule is None or dataset is None:
            return
        # What is kept is part of the stage's name: what an earlier Penstock kept may be less.
        kept = [field.name for field in dataclasses.fields(evaluation.Outcome)]
        told = {"metric": asked.metric, "by": asked.worst_slice.by if asked.worst_slice else None, "kept": kept}
        inputs = {"model": form.model, "dataset": dataset}
        done = self._workshop.made(form.name, "outcome", told, inputs, label="evaluate")
        form.outcome = evaluation.Outcome.load(done.folder / "outcome.npz")
        assert origin.outcome is not None
        if not origin.outcome.finite.any():
            raise ArtifactRefused(
                f"the source cannot be used: none of its answers to {len(origin.outcome.rows)} samples is a number; "
                "look for NaN in its weights"
            )
        form.quality = evaluation.quality(origin.outcome, form.outcome, metrics.named(asked.metric), rule)


def _rule(asked: Asked) -> Rule | None:
    """What the gate goes by."""
    said = asked.evaluation
    if said is None:
        return None
    metric = metrics.named(said.metric)
    return Rule(
        max_drop=said.max_drop,
        alpha=round(1 - said.confidence, 9),
        max_slice_drop=said.worst_slice.max_drop if said.worst_slice else None,
        slice_by=said.worst_slice.by if said.worst_slice else "",
        is_share=metric.is_share,
        has_points=metric.has_points,
    )


def _facts(name: str, done: stages.Made) -> dict[str, Any]:
    """What the report says of a step that made a model."""
    own = {key: value for key, value in done.facts.items() if key not in ("digest", "bytes", "signature", "operators")}
    return {"pass": name, "again": done.again, "seconds": done.took_s, **own}


def _steps(variant: Variant) -> float:
    """Of a variant: its check, its passes, its evaluation and its weighing."""
    if variant.search is not None:
        return 3 * _LEARNING
    return 3 + sum(_LEARNING if one.learns else 1.0 for one in variant.passes)
