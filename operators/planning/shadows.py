"""Shadows of an Endpoint: which Models get copies of its requests, and what came of them so far.

Each process of a router counts from zero, so what it had counted when it was last looked at is remembered, and what is
more since then is added. Such marks are kept for a while after a source has gone silent, because it may come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from operators.api.compare import Compare
from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Counts, Observation, Shadow
from operators.api.status import ShadowMark, ShadowStatus
from operators.planning import comparing, runtimes

LOOK_S = 15.0
"""How often the numbers are brought into the status."""
_MOST_MARKS = 16


def wanted(endpoint: Endpoint, serving: Mapping[str, Model], seen: Observation) -> tuple[Shadow, ...]:
    """Who gets copies: of what the spec names, what serves."""
    if seen.gateway:
        return ()
    return tuple(
        Shadow(
            shadow.model,
            shadow.percent * FULL_WEIGHT // 100,
            comparing.how(serving[shadow.model].spec.contract, shadow.compare or Compare()),
        )
        for shadow in endpoint.spec.shadow
        if shadow.model in serving
    )


def followed(
    endpoint: Endpoint, models: Set[str], serving: Mapping[str, Model], seen: Observation
) -> tuple[ShadowStatus, ...]:
    """The numbers of before and what has been counted since; ``models`` are there, ``serving`` or not."""
    before = {status.model: status for status in endpoint.status.shadows}
    counts = seen.route.counts if seen.route is not None else {}
    found = []
    for shadow in endpoint.spec.shadow:
        told = {source: of[shadow.model] for source, of in counts.items() if shadow.model in of}
        status = _added(before.get(shadow.model, ShadowStatus(model=shadow.model)), told)
        missing = "does not serve yet" if shadow.model in models else "does not exist"
        why = "" if shadow.model in serving else f"model {shadow.model} {missing}"
        found.append(status.model_copy(update={"message": _not_copied(seen) or why}))
    return tuple(found)


def ignored(endpoint: Endpoint, models: Set[str], serving: Mapping[str, Model], seen: Observation) -> Sequence[str]:
    """Fields that are not acted on: only built-in engines make copies, and none go to what is not there."""
    if not endpoint.spec.shadow:
        return ()
    if seen.gateway:
        return (f"spec.shadow ({_not_copied(seen)})",)
    arms = sorted({arm.model for arm in endpoint.spec.arms if arm.model in serving})
    foreign = [model for model in arms if serving[model].spec.runtime not in runtimes.BUILTIN_NAMES]
    whys = [f"the runtime of model {', '.join(foreign)} makes no copies"] if foreign else []
    whys += [f"model {one.model} does not exist" for one in endpoint.spec.shadow if one.model not in models]
    return (f"spec.shadow ({'; '.join(whys)})",) if whys else ()


def _not_copied(seen: Observation) -> str:
    return f"{seen.gateway} has no requests copied" if seen.gateway else ""


def _added(before: ShadowStatus, told: Mapping[str, Counts]) -> ShadowStatus:
    marks = {mark.source: mark for mark in before.marks}
    copied, compared, agreed = before.copied, before.compared, before.agreed
    for source, counts in told.items():
        now = ShadowMark(source=source, copied=counts.answered, agreed=counts.agreed, disagreed=counts.disagreed)
        then = marks.pop(source, None)
        # A counter that nobody touched for a day begins anew.
        begun = then is None or now.copied < then.copied or now.agreed < then.agreed or now.disagreed < then.disagreed
        if then is None or begun:
            then = ShadowMark(source=source, copied=0, agreed=0, disagreed=0)
        copied += now.copied - then.copied
        agreed += now.agreed - then.agreed
        compared += now.agreed - then.agreed + now.disagreed - then.disagreed
        marks[source] = now
    kept = tuple(marks.values())[-_MOST_MARKS:]
    return before.model_copy(update={"copied": copied, "compared": compared, "agreed": agreed, "marks": kept})
