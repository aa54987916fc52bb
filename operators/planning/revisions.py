"""How one revision replaces the next without a failed request.

A revision is named by a hash of all that makes it. At most one is *Serving* and has the traffic, one *Starting*
gets ready beside it, and those *Draining* finish what they began. Traffic moves when every wanted replica of
the new one answers; the old one's replicas go only when the router itself reports that none of its traffic and
no request under way is left there. A new revision that fails stays *Failed* beside the old one, which goes on
serving. What has served is kept as *Retired* up to the history limit, with its artifact, ready to go back to.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Arm, Fetch, Observation, WorkloadObserved
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import Recipe, RevisionStatus
from operators.planning import names, runtimes

START_DEADLINE_S = 120
"""A revision that is not ready after this long is reported as failed; it is still tried."""
DRAIN_LOOK_S = 1.0
"""How often the router is asked whether an old revision has finished."""

ALIVE = ("Serving", "Starting", "Failed", "Draining")


@dataclasses.dataclass(frozen=True)
class Step:
    """Revisions after this tick, newest first, and where traffic should go."""

    revisions: tuple[RevisionStatus, ...]
    arms: tuple[Arm, ...]
    reason: str = ""
    look_again_s: float | None = None


def name(model: Model, variant: str, recipe: Recipe) -> str:
    """The revision's name: a hash of artifact, contract, engine, resources and settings, not of how many replicas run.

    Settings count only where there are any: a Model that says nothing of them keeps the name it had before they were.
    """
    spec = model.spec
    own_runtime = None if spec.runtime in runtimes.BUILTIN_NAMES else recipe.runtime.to_dict()
    contract = recipe.contract.to_dict() if recipe.contract else None
    made_of = [recipe.uri, recipe.digest, variant, contract, spec.runtime, own_runtime, recipe.resources.to_dict()]
    return names.digest([*made_of, recipe.settings] if recipe.settings else made_of)


def target(model: Model, variant: str, artifact: Fetch, runtime: ServingRuntimeSpec, now: str) -> RevisionStatus:
    """The revision that ``model`` asks for, as it begins."""
    assert artifact.digest is not None
    recipe = Recipe(
        uri=artifact.uri,
        digest=artifact.digest,
        runtime=runtime,
        resources=model.spec.resources,
        contract=model.spec.contract,
        batching=model.spec.batching,
        limits=model.spec.limits,
    )
    return RevisionStatus(
        name=name(model, variant, recipe), variant=variant, recipe=recipe, state="Starting", since=now
    )


def step(model: Model, wanted: RevisionStatus | None, seen: Observation, now: datetime.datetime) -> Step:
    """Move ``model``'s revisions one tick on towards ``wanted`` (None: nothing new can be made now)."""
    at = timestamp(now)
    known = model.status.revisions
    serving = next((r for r in known if r.state == "Serving"), None)
    if wanted is None:
        # What can no longer be made anew may still be served.
        return _finish(model, serving, _let_go(model, known, seen, at), seen, at, "")
    wanted = next((r for r in known if r.name == wanted.name), wanted)
    others = [r for r in known if r.name != wanted.name]
    if serving is not None and serving.name == wanted.name:
        return _finish(model, serving, [serving, *_let_go(model, others, seen, at)], seen, at, "")

    workload = seen.workloads.get(names.workload(model.metadata.name, wanted.name, wanted.variant))
    if _ready(workload, model.spec.replicas):
        wanted = _become(wanted, "Serving", at, "")
        others = [_become(r, "Draining", at, "") if r.state == "Serving" else r for r in others]
        moved = f"revision {wanted.name} ({wanted.variant}) is ready: all traffic moves to it"
        return _finish(model, wanted, [wanted, *_let_go(model, others, seen, at)], seen, at, moved)

    if wanted.state in ("Retired", "Draining"):
        wanted = _become(wanted, "Starting", at, "")
    look_again_s = None
    if workload is not None and workload.refused:
        wanted = _become(wanted, "Failed", at, workload.message, workload.reason)
    else:
        left_s = START_DEADLINE_S - (now - parse_time(wanted.since)).total_seconds()
        if wanted.state == "Failed" or left_s <= 0:
            wanted = _become(wanted, "Failed", at, _overdue(model, workload), workload.reason if workload else "")
        else:
            look_again_s = left_s
            wanted = _told(wanted, workload)
    done = _finish(model, serving, [wanted, *_let_go(model, others, seen, at)], seen, at, "")
    return dataclasses.replace(done, look_again_s=min(filter(None, (done.look_again_s, look_again_s)), default=None))


def _finish(
    model: Model,
    serving: RevisionStatus | None,
    revisions: Sequence[RevisionStatus],
    seen: Observation,
    at: str,
    reason: str,
) -> Step:
    """Retire what the data plane is done with, apply the history limit, fill in what was seen."""
    arms: tuple[Arm, ...] = ()
    if serving is not None and model.spec.replicas > 0:
        workload = names.workload(model.metadata.name, serving.name, serving.variant)
        arms = (Arm(workload, serving.name, serving.variant, FULL_WEIGHT),)
    result: list[RevisionStatus] = []
    retired = 0
    for revision in revisions:
        workload = names.workload(model.metadata.name, revision.name, revision.variant)
        if revision.state == "Draining" and _drained(workload, seen):
            revision = _become(revision, "Retired", at, "")
            reason = reason or f"revision {revision.name} has no traffic left and is retired"
        if revision.state == "Retired":
            retired += 1
            if retired > model.spec.history_limit:
                continue
        observed = seen.workloads.get(workload)
        if revision.state == "Serving":
            revision = _told(revision, observed)
        weight = sum(arm.weight for arm in seen.route.arms if arm.workload == workload) if seen.route else 0
        ready, restarts = (observed.ready, observed.restarts) if observed else (0, 0)
        update = {"weight": weight, "ready_replicas": ready, "restarts": restarts}
        result.append(revision.model_copy(update=update))
    draining = any(revision.state == "Draining" for revision in result)
    return Step(tuple(result), arms, reason, DRAIN_LOOK_S if draining else None)


def _ready(workload: WorkloadObserved | None, replicas: int) -> bool:
    if workload is None or workload.recovering:
        return False
    return workload.wanted == replicas and workload.ready >= replicas


def _drained(workload: str, seen: Observation) -> bool:
    if seen.route is None:
        return False
    return all(arm.workload != workload for arm in seen.route.arms) and not seen.route.in_flight.get(workload)


def _let_go(model: Model, revisions: Sequence[RevisionStatus], seen: Observation, at: str) -> list[RevisionStatus]:
    """Attempts that are no longer wanted leave nothing behind, unless the router still reports one."""
    kept = []
    for revision in revisions:
        if revision.state in ("Starting", "Failed"):
            workload = names.workload(model.metadata.name, revision.name, revision.variant)
            if seen.route is None or _drained(workload, seen):
                continue
            revision = _become(revision, "Draining", at, "")
        kept.append(revision)
    return kept


def _told(revision: RevisionStatus, workload: WorkloadObserved | None) -> RevisionStatus:
    """``revision`` with what is wrong with its replicas now."""
    reason, message = (workload.reason, workload.message) if workload else ("", "")
    return revision.model_copy(update={"reason": reason, "message": message})


def _overdue(model: Model, workload: WorkloadObserved | None) -> str:
    words = workload.message or workload.doing if workload else ""
    words = words or f"it said nothing; see `penstock logs {model.metadata.name}`"
    return f"not ready after {START_DEADLINE_S} s, and still being tried: {words}"


def _become(revision: RevisionStatus, state: str, at: str, message: str, reason: str = "") -> RevisionStatus:
    since = revision.since if revision.state == state else at
    return revision.model_copy(update={"state": state, "since": since, "reason": reason, "message": message})


def timestamp(now: datetime.datetime) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes times."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime.datetime:
    """The time in an RFC 3339 text."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
