"""What a build found, as one JSON object: each variant with its verdict, the one to serve, and what that is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.engines import artifact, cpu
from serving.errors import ArtifactRefused
from serving.variants import choosing, gate, recipe
from serving.variants.forms import Form
from serving.variants.gate import Candidate, Quality, Rule, Verdict
from serving.variants.measuring import Measuring
from serving.variants.profiling import Machine, proven_for
from serving.variants.recipe import Asked

_COSTS = {"cost": "CPU time", "latency": "CPU time of a single sample", "size": "space"}


def report(asked: Asked, origin: Form, forms: Sequence[Form], rule: Rule | None, measured: Measuring) -> dict[str, Any]:
    """Of ``forms``, of which ``origin`` is the source; what the gate and the objective make of them included."""
    verdicts = _verdicts(asked, origin, forms, rule, measured)
    passed = [form for form in forms if verdicts[form.name].accepted]
    if not passed:
        why = "; ".join(f"{form.name}: {verdicts[form.name].reason}" for form in forms if form is not origin)
        raise ArtifactRefused(f"nothing may serve by {asked.engine}: {why}")
    meeting = [form for form in passed if measured.meets(form)]
    chosen = min(meeting or passed, key=measured.counted if meeting else measured.call_ms)
    others = [form for form in forms if form is not origin and not form.refused]
    return {
        "source": recipe.plain(asked.source),
        "evaluation": recipe.plain(asked.evaluation),
        "objective": asked.objective.minimize,
        "machine": dataclasses.asdict(Machine.here(1)),
        "variants": [_variant(form, verdicts[form.name], origin, rule, measured) for form in forms],
        "samplesNeeded": {
            "power": gate.POWER,
            "variants": {form.name: _needed(form.quality, rule) for form in others if form.quality and rule},
        },
        "confusion": _confusion(asked, forms),
        "warnings": _warnings(asked, origin),
        "selected": chosen.name,
        "choice": _choice(chosen, measured),
        "latency": _latency(chosen, measured),
        "frontier": choosing.frontier(
            {
                form.name: choosing.Point(form.quality.value, measured.counted(form), form.bytes)
                for form in forms
                if form.quality and form.cost and not form.refused and not np.isnan(form.quality.value)
            }
        ),
        "cellsMeasured": len(measured.known),
    }


def _verdicts(
    asked: Asked, origin: Form, forms: Sequence[Form], rule: Rule | None, measured: Measuring
) -> dict[str, Verdict]:
    """Whether each may serve, by name."""
    found: dict[str, Verdict] = {}
    others = [form for form in forms if form is not origin and not form.refused]
    if rule is not None and origin.quality is not None:
        costs = _COSTS[asked.objective.minimize]
        compared = [one for one in others if one.cost and (one.searched_by or asked.engine == "auto")]
        rivals = _rivals(compared, rule, costs, measured)
        candidates = [
            Candidate(one.name, one.quality, measured.counted(one))
            for one in others
            if one.quality and one.cost and one.name not in rivals
        ]
        first = Candidate(origin.name, origin.quality, measured.counted(origin))
        found = {**rivals, **gate.judge(first, candidates, rule, costs, _engine(asked))}
        # A search measures only what may be chosen.
        lacking = {one.name: gate.lacking(one.quality, rule) for one in others if one.quality and not one.cost}
        found |= {name: Verdict(False, why) for name, why in lacking.items()}
    unproven = Verdict(False, "nothing says what it may lose; set spec.evaluation with a dataset")
    for form in forms:
        if form is origin:
            other = f", which is not for {engine}" if (engine := _engine(asked)) else ""
            found[form.name] = Verdict(not other, f"the source itself{other}")
        elif form.refused:
            found[form.name] = Verdict(False, form.refused)
        found.setdefault(form.name, unproven)
    return found


def _engine(asked: Asked) -> str:
    """The one that everything has to serve by."""
    return asked.engine if asked.engine != "auto" else ""


def _rivals(found: Sequence[Form], rule: Rule, costs: str, measured: Measuring) -> dict[str, Verdict]:
    """Of what was made to be compared, by a search or for several engines, those that cost hardly more than the best:
    they must not stand in its way.
    """
    keep = [one for one in found if one.quality and not gate.lacking(one.quality, rule)]
    if not keep:
        return {}
    best = min(keep, key=measured.counted)
    apart = {one.name: measured.counted(one) / measured.counted(best) for one in keep if one is not best}
    return {
        name: Verdict(False, f"variant {best.name}, tried beside it, takes {share:.2f} times less {costs}")
        for name, share in apart.items()
        if share < gate.LEAST_GAIN
    }


def _variant(form: Form, verdict: Verdict, origin: Form, rule: Rule | None, measured: Measuring) -> dict[str, Any]:
    keeps = form.quality is not None and rule is not None and not gate.lacking(form.quality, rule)
    told: dict[str, Any] = {
        "name": form.name,
        "accepted": verdict.accepted,
        "proven": verdict.accepted or (keeps and not form.refused),
        "reason": verdict.reason,
        "searchedBy": form.searched_by,
        "engine": artifact.engine(form.model),
        "passes": [recipe.plain(one) for one in form.variant.passes],
        "made": form.made,
    }
    if form.digest:
        told |= {"digest": form.digest, "bytes": form.bytes, "uri": f"file://{form.model}"}
    if form.quality is not None:
        told["quality"] = _quality(form.quality)
    if form.cost is not None and origin.cost is not None:
        curve = form.cost.curve
        told |= {
            "cpuMs": {str(size): round(ms, 4) for size, ms in form.cost.cpu_ms.items()},
            "wallMs": {str(size): round(ms, 4) for size, ms in form.cost.wall_ms.items()},
            "curve": {"fixedMs": curve.fixed_ms, "sampleMs": curve.sample_ms, "error": curve.error},
            "gain": round(measured.counted(origin) / measured.counted(form), 3),
            "forCpu": list(_for_cpu(form, Machine.here(1))),
            "memoryBytes": form.memory_bytes,
            "loadS": form.load_s,
        }
    return told


def _for_cpu(form: Form, machine: Machine) -> tuple[str, ...]:
    """Features of which a processor must have one to serve it; every one with bfloat16 multiplies integers as well."""
    precisions = {one.lower.precision for one in form.variant.passes if one.lower is not None}
    if "bf16" in precisions:
        return cpu.BF16
    return proven_for(("QuantizeLinear",) if "int8" in precisions else form.operators, machine)


def _confusion(asked: Asked, forms: Sequence[Form]) -> dict[str, Any] | None:
    """How many samples of each class each variant takes for which; None where answers are no classes."""
    found = {form.name: form.outcome.confusion() for form in forms if form.outcome is not None}
    counts = {name: one for name, one in found.items() if one is not None}
    if not counts:
        return None
    classes = max(len(one) for one in counts.values())
    labels = (asked.contract.get("output") or {}).get("labels") or ()
    return {
        "labels": [labels[place] if place < len(labels) else str(place) for place in range(classes)],
        "variants": {name: np.pad(one, (0, classes - len(one))).tolist() for name, one in counts.items()},
    }


def _warnings(asked: Asked, origin: Form) -> list[str]:
    """What makes the result worth less than it may seem."""
    found = []
    counts = origin.outcome.confusion() if origin.outcome is not None else None
    if counts is not None and (right := np.trace(counts)) <= (commonest := counts.sum(axis=1).max()):
        found.append(
            f"the source is right on {right / counts.sum():.1%} of the samples, and always naming the commonest "
            f"class would be on {commonest / counts.sum():.1%}: nothing is proved by such samples; see whether x "
            "and y belong together"
        )
    labels = (asked.contract.get("output") or {}).get("labels") or ()
    columns = next((shape[-1] for _, _, shape in origin.signature.get("outputs", ()) if len(shape) == 2), -1)
    if labels and columns > 1 and len(labels) != columns:
        found.append(
            f"contract.output.labels names {len(labels)} classes, and the model's answer has {columns} columns"
        )
    for variant in asked.variants:
        if variant.search is not None and variant.search.training is None:
            found.append(
                f"{variant.name} had no samples to learn from, so it tried nothing that is pruned; "
                "name some in search.training"
            )
    return found


def _choice(chosen: Form, measured: Measuring) -> dict[str, Any]:
    """How the selected variant serves best."""
    cell = measured.cell(chosen)
    took = measured.known[cell]
    return {
        "engine": artifact.engine(chosen.model),
        "threads": cell.threads,
        "batch": cell.batch,
        "cpuMs": round(took.cpu_ms, 4),
        "wallMs": round(took.wall_ms, 4),
    }


def _latency(chosen: Form, measured: Measuring) -> dict[str, Any] | None:
    """Whether the target is met, by one call; how long a request waits for others is not known here."""
    target = measured.target_ms
    if target is None:
        return None
    is_met, call_ms = measured.meets(chosen), measured.call_ms(chosen)
    said = "" if is_met else "nothing that may serve meets it; the quickest is selected: "
    reason = f"{said}a call of {chosen.name} takes {call_ms:.3g} ms, and {target:g} ms are allowed"
    return {"targetMs": target, "met": is_met, "callMs": round(call_ms, 4), "reason": reason}


def _quality(found: Quality) -> dict[str, Any]:
    worst = found.worst_slice
    return {
        "value": found.value,
        "drop": found.drop,
        "dropUpperBound": found.drop_upper_bound,
        "samples": found.samples,
        "disagreement": found.disagreement,
        "churn": found.churn,
        "worstSlice": worst and _slice(worst),
        "slices": [_slice(one) for one in found.slices],
    }


def _needed(found: Quality, rule: Rule) -> dict[str, Any]:
    needed = gate.samples_needed(found, rule)
    return {"churn": found.churn, "overall": needed.overall, "eachSlice": needed.each_slice}


def _slice(one: gate.Slice) -> dict[str, Any]:
    return {"name": one.name, "samples": one.samples, "drop": one.drop, "dropUpperBound": one.drop_upper_bound}
