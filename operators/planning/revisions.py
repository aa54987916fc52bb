"""How one revision replaces the next without a failed request.

A revision is named by a hash of all that makes it. At most one is *Serving* and has the traffic, one *Starting*
gets ready beside it, and those *Draining* finish what they began. Traffic moves when every wanted replica of
the new one answers; the old one's replicas go only when the router itself reports that none of its traffic and
no request under way is left there. A new revision that fails stays *Failed* beside the old one, which goes on
serving. What has served is kept as *Retired* up to the history limit, with its artifact, ready to go back to.

Where ``spec.rollout`` has steps, a *Candidate* gets traffic by them (``rollout.py``) before it is the one that serves.
One that is refused on the way is *RolledBack*, and is not tried again before the spec has asked for another revision or
a person says so.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from operators.api.commands import ABORT, ONGOING, PROMOTE, RETRY
from operators.api.evidence import Evidence
from operators.api.model import Model, Rollout
from operators.api.plan import FULL_WEIGHT, Arm, Event, Fetch, FetchState, Mirror, Observation, WorkloadObserved
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import Otherwise, Recipe, RevisionStatus, RolloutStatus
from operators.planning import capacity, comparing, names, rollout, runtimes, states, trail
from operators.planning.analysis import weighing
from operators.planning.times import parse_time, timestamp

DRAIN_LOOK_S = 1.0
"""How often the router is asked whether an old revision has finished."""


@dataclasses.dataclass(frozen=True)
class Step:
    """Revisions after this tick, newest first, and where traffic should go."""

    revisions: tuple[RevisionStatus, ...]
    arms: tuple[Arm, ...]
    reason: str = ""
    look_again_s: float | None = None
    rollout: RolloutStatus | None = None
    events: tuple[Event, ...] = ()
    mirror: Mirror | None = None

    def replicas(self, revision: RevisionStatus, usual: int) -> int | None:
        """Replicas that ``revision`` is to have; None: it is not to run."""
        if revision.state == "RolledBack":
            return revision.replicas
        return (usual if revision.replicas is None else revision.replicas) if revision.state in states.ALIVE else None


def name(model: Model, variant: str, recipe: Recipe) -> str:
    """The revision's name: a hash of artifact, contract, engine, resources and settings, not of how many replicas run.

    What there is not always counts only where it is: a Model without it keeps the name it had before there was any.
    """
    spec = model.spec
    own_runtime = None if runtimes.counts_by_name(spec.runtime, recipe.runtime) else _told(recipe.runtime)
    contract = recipe.contract.to_dict() if recipe.contract else None
    made_of = [recipe.uri, recipe.digest, variant, contract, spec.runtime, own_runtime, recipe.resources.to_dict()]
    otherwise = recipe.otherwise.to_dict() if recipe.otherwise else None
    return names.digest([*made_of, *(said for said in (recipe.settings, otherwise) if said)])


def _told(runtime: ServingRuntimeSpec) -> dict[str, Any]:
    told = runtime.to_dict()
    if runtime.deploy_as == "Deployment":
        del told["deployAs"]
    return told


def target(
    model: Model,
    variant: str,
    artifact: Fetch,
    runtime: ServingRuntimeSpec,
    now: str,
    otherwise: Otherwise | None = None,
) -> RevisionStatus:
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
        otherwise=otherwise,
    )
    return RevisionStatus(
        name=name(model, variant, recipe), variant=variant, recipe=recipe, state="Starting", since=now
    )


def step(
    model: Model, wanted: RevisionStatus | None, seen: Observation, now: datetime.datetime, waits: str = ""
) -> Step:
    """Move ``model``'s revisions one tick on towards ``wanted`` (None: nothing new can be made now).

    ``waits`` says what has to end before a step of a rollout may begin.
    """
    at = timestamp(now)
    known = model.status.revisions
    serving = next((r for r in known if r.state == "Serving"), None)
    last = model.status.rollout
    rolling = last.revision if last is not None and last.state in ONGOING else ""
    candidate = next((r for r in known if r.name == rolling and r.state in ("Candidate", "Starting")), None)
    is_stepped = rollout.is_stepped(model.spec)
    if wanted is None and is_stepped and serving is not None and candidate is not None:
        waits = waits or "the revision that the spec asks for is not known yet"
        others = [r for r in known if r.name not in (serving.name, candidate.name)]
        return _roll(model, serving, candidate, others, seen, now, waits)
    if wanted is None:
        # What can no longer be made anew may still be served.
        return _finish(model, serving, states.let_go(model, known, seen, at, ""), seen, at, "")
    wanted = next((r for r in known if r.name == wanted.name), wanted)
    others = [r for r in known if r.name != wanted.name]
    if serving is not None and serving.name == wanted.name:
        return _finish(model, serving, [serving, *states.let_go(model, others, seen, at, wanted.name)], seen, at, "")

    is_tried_again = last is not None and rollout.is_named(model, RETRY, last)
    if wanted.state == "RolledBack" and not is_tried_again:
        return _finish(model, serving, [wanted, *states.let_go(model, others, seen, at, wanted.name)], seen, at, "")
    workload = seen.workloads.get(names.workload(model.metadata.name, wanted.name, wanted.variant))
    if is_stepped and serving is not None:
        wanted = states.settled(model, wanted, seen, at)
        if states.is_leaving(wanted):
            # It may have traffic of its last time, and begins anew without any.
            others = states.let_go(model, others, seen, at, wanted.name)
            return _finish(model, serving, [wanted, *others], seen, at, "")
        others = [r for r in states.let_go(model, others, seen, at, wanted.name) if r.name != serving.name]
        return _roll(model, serving, wanted, others, seen, now, waits)
    if states.is_ready(workload, model.spec.replicas):
        wanted = states.become(wanted, "Serving", at, "")
        others = [states.become(r, "Draining", at, "") if r.state == "Serving" else r for r in others]
        moved = f"revision {wanted.name} ({wanted.variant}) is ready: all traffic moves to it"
        return _finish(model, wanted, [wanted, *states.let_go(model, others, seen, at, wanted.name)], seen, at, moved)
    wanted, look_again_s = _starting(model, wanted, workload, now)
    done = _finish(model, serving, [wanted, *states.let_go(model, others, seen, at, wanted.name)], seen, at, "")
    return dataclasses.replace(done, look_again_s=min(filter(None, (done.look_again_s, look_again_s)), default=None))


def _starting(
    model: Model, wanted: RevisionStatus, workload: WorkloadObserved | None, now: datetime.datetime
) -> tuple[RevisionStatus, float | None]:
    """``wanted``, which is not ready, and when that is to be looked at again."""
    at = timestamp(now)
    if wanted.state not in ("Starting", "Failed"):
        wanted = states.become(wanted, "Starting", at, "")
    if workload is not None and workload.refused:
        return states.become(wanted, "Failed", at, workload.message, workload.reason), None
    left_s = states.START_DEADLINE_S - (now - parse_time(wanted.since)).total_seconds()
    if wanted.state == "Failed" or left_s <= 0:
        return states.become(
            wanted, "Failed", at, states.overdue(model, workload), workload.reason if workload else ""
        ), None
    return states.told(wanted, workload), left_s


def _roll(
    model: Model,
    serving: RevisionStatus,
    wanted: RevisionStatus,
    others: Sequence[RevisionStatus],
    seen: Observation,
    now: datetime.datetime,
    waits: str,
) -> Step:
    """One tick of a rollout by steps from ``serving`` to ``wanted``; ``others`` are let go already."""
    settings, at = model.spec.rollout, timestamp(now)
    assert settings is not None
    within = capacity.bounds(settings, model.spec.replicas)
    last = model.status.rollout
    goes_on = last is not None and last.revision == wanted.name and last.state in ONGOING
    before = last if goes_on and last is not None else rollout.begin(settings, wanted.name, serving.name, now)
    before = before.model_copy(update={"stable": serving.name})
    others = [states.settled(model, each, seen, at) for each in others]
    evidence = _evidence(model, serving, wanted, before, seen, now)
    decision = rollout.decide(
        rollout.Situation(
            settings=settings,
            within=within,
            stable=states.side(model, serving, seen),
            candidate=states.side(model, wanted, seen),
            before=before,
            now=now,
            begun=wanted.state == "Candidate",
            promote=rollout.is_named(model, PROMOTE, before),
            abort=rollout.is_named(model, ABORT, before),
            paused=rollout.paused(model),
            waits=waits,
            evidence=evidence,
            others=sum(max(1, states.side(model, each, seen).existing) for each in others if states.is_leaving(each)),
        )
    )
    decision = dataclasses.replace(decision, status=trail.followed(before, decision.status, at))
    look_again_s = decision.look_again_s
    match decision.outcome:
        case rollout.Outcome.PROMOTE:
            wanted = states.become(wanted, "Serving", at, "")
            serving, old = wanted, states.become(serving, "Draining", at, "")
            revisions = [wanted, old, *others]
        case rollout.Outcome.ROLL_BACK:
            message = decision.status.message + _gone(serving, seen)
            decision = dataclasses.replace(decision, status=decision.status.model_copy(update={"message": message}))
            wanted = states.become(wanted, "RolledBack", at, message)
            revisions = [wanted, serving, *others]
        case rollout.Outcome.GO_ON:
            workload = seen.workloads.get(names.workload(model.metadata.name, wanted.name, wanted.variant))
            if decision.status.weight or wanted.state == "Candidate":
                wanted = states.told(states.become(wanted, "Candidate", at, ""), workload)
            elif not states.is_ready(workload, decision.candidate):
                wanted, start_s = _starting(model, wanted, workload, now)
                look_again_s = min(filter(None, (look_again_s, start_s)), default=None)
            else:
                wanted = states.told(states.become(wanted, "Starting", at, ""), workload)
            wanted = wanted.model_copy(update={"replicas": decision.candidate})
            serving = serving.model_copy(update={"replicas": decision.stable})
            revisions = [wanted, serving, *others]
    reason, word = decision.reason, decision.word
    if not goes_on and not word:
        reason, word = f"revision {wanted.name} is to replace {before.stable} by {before.steps} steps", "RolloutBegun"
    mirrored = wanted.name if decision.mirrors else ""
    done = _finish(model, serving, revisions, seen, at, reason, decision.status, mirrored)
    look_again_s = min(filter(None, (done.look_again_s, look_again_s)), default=None)
    events = (_event(model, decision.status, word, reason, "" if goes_on else _after(model, last)),) if word else ()
    mirror = _mirror(settings, wanted) if decision.mirrors else None
    return dataclasses.replace(done, look_again_s=look_again_s, events=events, mirror=mirror)


def _mirror(settings: Rollout, candidate: RevisionStatus) -> Mirror | None:
    """Which requests ``candidate`` gets copies of, and by what its answers are compared."""
    agreement = settings.analysis.agreement if settings.analysis else None
    if agreement is None:
        return None
    share = max(1, round(agreement.percent * FULL_WEIGHT / 100))
    return Mirror(candidate.name, share, comparing.how(candidate.recipe.contract, agreement))


def _gone(serving: RevisionStatus, seen: Observation) -> str:
    """What is to be said where what serves could not be fetched again."""
    found = seen.fetches.get(Fetch(serving.recipe.uri, serving.recipe.digest))
    if found is None or found.state not in (FetchState.REFUSED, FetchState.UNAVAILABLE):
        return ""
    return f"; the artifact of revision {serving.name} is away, so it serves from the replicas it has: {found.message}"


def _after(model: Model, last: RolloutStatus | None) -> str:
    """By what a rollout that begins is told from others: its own time is another one where it is decided again."""
    return last.began if last is not None else model.metadata.creation_timestamp or "first"


def _event(model: Model, status: RolloutStatus, word: str, note: str, after: str) -> Event:
    """What is decided about a rollout, named by what it is about, so that deciding it again is the same.

    ``after`` is what came before one that begins with this.
    """
    name = f"{model.metadata.name}.{status.revision}.{after or status.began}.{status.step}.{word}"
    return Event(name, "Rollout", word, note, is_warning=word == "RolledBack")


def _evidence(
    model: Model,
    serving: RevisionStatus,
    wanted: RevisionStatus,
    before: RolloutStatus,
    seen: Observation,
    now: datetime.datetime,
) -> Evidence | None:
    """What is known by now of ``wanted`` beside ``serving``; None where nothing is to be judged."""
    settings = model.spec.rollout.analysis if model.spec.rollout else None
    if settings is None:
        return None
    stable, candidate = (names.workload(model.metadata.name, r.name, r.variant) for r in (serving, wanted))
    known = before.evidence
    if known is None or (known.stable, known.candidate) != (stable, candidate):
        return weighing.begin(seen.route, stable, candidate, settings, now)
    return weighing.weigh(known, seen.route, settings, now)


def _finish(
    model: Model,
    serving: RevisionStatus | None,
    revisions: Sequence[RevisionStatus],
    seen: Observation,
    at: str,
    reason: str,
    status: RolloutStatus | None = None,
    mirrored: str = "",
) -> Step:
    """Retire what the data plane is done with, apply the history limit, fill in what was seen."""
    is_rolling = status is not None and status.state in ONGOING
    result: list[RevisionStatus] = []
    retired = 0
    for revision in revisions:
        before = revision
        revision = states.settled(model, revision, seen, at)
        if revision.state != before.state:
            reason = reason or f"revision {revision.name} has no traffic left and is retired"
        if revision.state == "Retired":
            retired += 1
            if retired > model.spec.history_limit:
                continue
        workload = names.workload(model.metadata.name, revision.name, revision.variant)
        observed = seen.workloads.get(workload)
        if revision.state == "Serving":
            revision = states.told(revision, observed)
        weight = sum(arm.weight for arm in seen.route.arms if arm.workload == workload) if seen.route else 0
        ready, restarts = (observed.ready, observed.restarts) if observed else (0, 0)
        update = {"weight": weight, "ready_replicas": ready, "restarts": restarts}
        result.append(revision.model_copy(update=update))
    result = _with_room(model, result, seen, is_rolling)
    is_leaving = any(states.is_leaving(revision) for revision in result)
    return Step(
        tuple(result),
        _arms(model, serving, result, status.weight if status is not None and is_rolling else 0, mirrored),
        reason,
        DRAIN_LOOK_S if is_leaving else None,
        status or _ended(model, serving, result, at),
    )


def _arms(
    model: Model,
    serving: RevisionStatus | None,
    revisions: Sequence[RevisionStatus],
    weight: int,
    mirrored: str,
) -> tuple[Arm, ...]:
    """The traffic: ``weight`` of it for the candidate, the rest for what serves.

    The one that is ``mirrored`` to, by its name, is an arm without any traffic, too.
    """
    if serving is None or model.spec.replicas == 0:
        return ()
    candidate = next((r for r in revisions if r.state == "Candidate" or r.name == mirrored), None)
    shares = [(serving, FULL_WEIGHT - weight), *([(candidate, weight)] if candidate else [])]
    return tuple(
        Arm(
            names.workload(model.metadata.name, revision.name, revision.variant), revision.name, revision.variant, share
        )
        for revision, share in shares
        if share or revision.name == mirrored
    )


def _with_room(
    model: Model, revisions: Sequence[RevisionStatus], seen: Observation, is_rolling: bool
) -> list[RevisionStatus]:
    """Replicas of what serves beside what is to go; without a rollout by steps everything has as many as wanted."""
    serving = next((r for r in revisions if r.state == "Serving"), None)
    leaving = [r for r in revisions if states.is_leaving(r) and r.replicas is not None]
    given: dict[str, int | None] = {} if is_rolling or serving is None else {serving.name: None}
    for revision in leaving if serving is not None else ():
        assert serving is not None
        within = capacity.bounds(model.spec.rollout or Rollout(), model.spec.replicas)
        stable, gone = states.side(model, serving, seen), states.side(model, revision, seen)
        keeps = capacity.Side(stable.existing, stable.ready, 0)
        goes = capacity.Side(gone.existing, gone.ready, FULL_WEIGHT if gone.weight is None else gone.weight)
        usual, given[revision.name] = capacity.returned(within, keeps, goes)
        if not is_rolling and usual < model.spec.replicas:
            given[serving.name] = usual
    return [r.model_copy(update={"replicas": given[r.name]}) if r.name in given else r for r in revisions]


def _ended(
    model: Model, serving: RevisionStatus | None, revisions: Sequence[RevisionStatus], at: str
) -> RolloutStatus | None:
    """What is remembered of the last rollout, where none goes on."""
    last = model.status.rollout
    if last is None or last.state not in ONGOING:
        return last
    state, message = "Withdrawn", f"revision {last.revision} is not wanted any more"
    if serving is not None and serving.name == last.revision:
        state, message = "Promoted", f"revision {last.revision} has all traffic: spec.rollout has no steps any more"
    elif any(r.name == last.revision and r.state in ("Starting", "Failed") for r in revisions):
        message = "spec.rollout has no steps any more"
    update = {"state": state, "message": message, "since": at, "weight": 0, "next": "", "next_at": ""}
    return trail.followed(last, last.model_copy(update=update), at)
