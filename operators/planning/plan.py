"""``plan``: from what was asked and what was seen to all that should exist, and why."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Mapping, Sequence

from operators.api.base import Condition
from operators.api.commands import ONGOING
from operators.api.model import Model
from operators.api.plan import Fetch, Observation, Plan, Route, Workload
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import EndpointStatus, ModelStatus, RevisionStatus, VariantStatus
from operators.planning import builds, names, revisions, variants, windows
from operators.planning import rollout as rollouts
from operators.planning import runtimes as runtimes_
from operators.planning.conditions import Verdict, acted_on, condition
from operators.planning.times import timestamp


def model(
    model: Model,
    runtimes: Mapping[str, ServingRuntimeSpec],
    seen: Observation,
    now: datetime.datetime,
    waits: str = "",
) -> Plan:
    """Everything that should exist for ``model``. Pure: same arguments, same plan.

    ``waits`` says what of other Models has to end before a step of a rollout may begin.
    """
    resolved = variants.resolve(model, seen)
    runtime = runtimes.get(model.spec.runtime)
    wanted = None
    unusable = _unusable(model, runtimes, seen)
    if resolved.chosen and resolved.artifact and runtime and not unusable:
        at = timestamp(now)
        wanted = revisions.target(model, resolved.chosen.name, resolved.artifact, runtime, at, resolved.otherwise)
    step = revisions.step(_comparable(model, seen), wanted, seen, now, waits)
    resolved = _with_refusal(resolved, step, seen, model)
    status = _status(model, resolved, unusable, step, seen, timestamp(now))
    ready = next(c for c in status.conditions if c.type == "Ready")
    return Plan(
        builds=(resolved.build,) if resolved.build else (),
        fetches=resolved.fetches | {Fetch(r.recipe.uri, r.recipe.digest) for r in step.revisions},
        workloads=tuple(
            _workload(model, r, replicas)
            for r in step.revisions
            if (replicas := step.replicas(r, model.spec.replicas)) is not None
        ),
        route=Route(
            model.metadata.namespace,
            model.metadata.name,
            step.arms,
            "" if step.arms else ready.message,
            observe=model.spec.rollout is not None and model.spec.rollout.analysis is not None,
            mirror=step.mirror,
            assignment=model.spec.rollout.assignment if model.spec.rollout else None,
            max_concurrent=model.spec.traffic.max_concurrent if model.spec.traffic else None,
            feedback=_takes_feedback(model),
        ),
        status=status,
        look_again_s=min(filter(None, (step.look_again_s, seen.look_again_s)), default=None),
        reason=step.reason,
        events=step.events,
    )


def _comparable(model: Model, seen: Observation) -> Model:
    """``model`` that asks for equal answers only where requests are mirrored: others would be waited for in vain."""
    rollout = model.spec.rollout
    if not _is_uncompared(model, seen) or rollout is None or rollout.analysis is None:
        return model
    analysis = rollout.analysis.model_copy(update={"agreement": None})
    spec = model.spec.model_copy(update={"rollout": rollout.model_copy(update={"analysis": analysis})})
    return model.model_copy(update={"spec": spec})


def _is_uncompared(model: Model, seen: Observation) -> bool:
    """Whether equal answers are asked for and nobody compares them. Only the built-in server mirrors requests."""
    analysis = model.spec.rollout.analysis if model.spec.rollout else None
    is_asked = analysis is not None and analysis.agreement is not None
    return is_asked and (bool(seen.gateway) or model.spec.runtime not in runtimes_.BUILTIN_NAMES)


def _takes_feedback(model: Model) -> bool:
    analysis = model.spec.rollout.analysis if model.spec.rollout else None
    return analysis is not None and analysis.feedback is not None


def _workload(model: Model, revision: RevisionStatus, replicas: int) -> Workload:
    recipe = revision.recipe
    return Workload(
        name=names.workload(model.metadata.name, revision.name, revision.variant),
        namespace=model.metadata.namespace,
        model=model.metadata.name,
        revision=revision.name,
        variant=revision.variant,
        artifact=Fetch(recipe.uri, recipe.digest),
        runtime=recipe.runtime,
        replicas=replicas,
        resources=recipe.resources,
        settings=recipe.settings,
        otherwise=recipe.otherwise,
    )


def _with_refusal(
    resolved: variants.Resolved, step: revisions.Step, seen: Observation, model: Model
) -> variants.Resolved:
    """Remember that the engine refused a variant, so that the next one is tried on the next tick."""
    refusals: dict[str, str] = {}
    for revision in step.revisions:
        workload = seen.workloads.get(names.workload(model.metadata.name, revision.name, revision.variant))
        if revision.state == "Failed" and workload is not None and workload.refused:
            refusals[revision.variant] = revision.message
    if not refusals:
        return resolved
    states = tuple(
        state.model_copy(update={"state": "Refused", "reason": refusals[state.name]})
        if state.state == "Selected" and state.name in refusals
        else state
        for state in resolved.variants
    )
    return dataclasses.replace(resolved, variants=states)


def _status(
    model: Model,
    resolved: variants.Resolved,
    unusable: Verdict | None,
    step: revisions.Step,
    seen: Observation,
    at: str,
) -> ModelStatus:
    serving = next((r for r in step.revisions if r.state == "Serving"), None)
    failed = next((r for r in step.revisions if r.state == "Failed"), None)
    starting = next((r for r in step.revisions if r.state == "Starting"), None)
    alive = [r for r in step.revisions if step.replicas(r, model.spec.replicas) is not None]
    observed = [seen.workloads.get(names.workload(model.metadata.name, r.name, r.variant)) for r in alive]
    make = functools.partial(condition, generation=model.metadata.generation, before=model.status.conditions, at=at)
    accepted = make("Accepted", *(unusable or _accepted(model, seen)))
    variants_ready = make("VariantsReady", *(unusable or _variants_ready(model, resolved)))
    rollout = make("RolloutComplete", *_rollout(model, serving, starting, failed, step, accepted, variants_ready, seen))
    ready = make("Ready", *_ready(model, serving, step, rollout, seen))
    return ModelStatus(
        observed_generation=model.metadata.generation,
        conditions=(ready, accepted, variants_ready, rollout),
        url=seen.url,
        revision=serving.name if serving else "",
        variant=serving.variant if serving else "",
        gain=_gain(resolved.variants, serving),
        replicas=sum(o.wanted for o in observed if o),
        ready_replicas=sum(o.ready for o in observed if o),
        selector=f"penstock.dev/model={model.metadata.name}",
        sources=resolved.sources,
        variants=resolved.variants,
        revisions=step.revisions,
        rollout=step.rollout,
    )


def _unusable(model: Model, runtimes: Mapping[str, ServingRuntimeSpec], seen: Observation) -> Verdict | None:
    """Why nothing can be made of the Model's runtime; None if something can."""
    runtime = runtimes.get(model.spec.runtime)
    what = f"model {model.metadata.name}: spec.runtime {model.spec.runtime!r}"
    if runtime is None:
        known = ", ".join(sorted(runtimes))
        next_step = f"apply a ServingRuntime of that name, or use one of {known}"
        return False, "RuntimeNotFound", f"{what} does not exist; {next_step}"
    if why := seen.cannot_deploy_as.get(runtime.deploy_as):
        return False, "KindNotInstalled", f"{what} is deployed as {runtime.deploy_as}: {why}"
    return None


def _accepted(model: Model, seen: Observation) -> Verdict:
    name = model.metadata.name
    rollout = model.spec.rollout
    if rollout is not None and (unknown := windows.unknown(rollout.windows)):
        return False, "UnknownTimeZone", f"model {name}: spec.rollout.windows: {unknown}"
    ignored = builds.said(model) if seen.cannot_build else ()
    drawn = ("spec.rollout.assignment",) if seen.gateway and rollout and rollout.assignment else ()
    flooded = ("spec.traffic",) if seen.gateway and model.spec.traffic else ()
    uncompared = ("spec.rollout.analysis.agreement",) if _is_uncompared(model, seen) else ()
    unheard = ("spec.rollout.analysis.feedback",) if seen.gateway and _takes_feedback(model) else ()
    return acted_on(f"model {name}", (*model.not_acted_on(), *ignored, *drawn, *flooded, *uncompared, *unheard))


def _gain(states: Sequence[VariantStatus], serving: RevisionStatus | None) -> str:
    """Of the variant that serves, where that is the one that was measured."""
    for state in states:
        if (
            serving is not None
            and (state.name, state.digest) == (serving.variant, serving.recipe.digest)
            and state.gain
        ):
            return f"{state.gain:.1f}x"
    return ""


def _variants_ready(model: Model, resolved: variants.Resolved) -> Verdict:
    states = resolved.variants
    if resolved.building:
        return False, "Building", f"model {model.metadata.name}: {resolved.building}"
    selected = next((v for v in states if v.state == "Selected"), None)
    details = "; ".join(f"variant {v.name}: {v.reason}" for v in states if v.state != "Selected")
    if selected is not None:
        return True, "Selected", f"variant {selected.name} is selected: {selected.reason}"
    if any(v.state == "Preparing" for v in states):
        return False, "Preparing", f"model {model.metadata.name}: {details}"
    return False, "NoneUsable", f"model {model.metadata.name}: no variant can be served: {details}"


def _rollout(
    model: Model,
    serving: RevisionStatus | None,
    starting: RevisionStatus | None,
    failed: RevisionStatus | None,
    step: revisions.Step,
    accepted: Condition,
    variants_ready: Condition,
    seen: Observation,
) -> Verdict:
    name = model.metadata.name
    for cause in (accepted, variants_ready):
        if cause.status == "False":
            return False, cause.reason, cause.message
    if failed is not None:
        return (
            False,
            failed.reason or "RevisionFailed",
            f"model {name}: revision {failed.name} ({failed.variant}) does not start: {failed.message}",
        )
    if (told := _by_steps(model, step)) is not None:
        return told
    if starting is not None or serving is None:
        revision = f"revision {starting.name} ({starting.variant})" if starting else "the first revision"
        said = f": {starting.message}" if starting and starting.message else ""
        return False, (starting and starting.reason) or "Starting", f"model {name}: {revision} is starting{said}"
    if any(r.state == "Draining" for r in step.revisions) or serving.weight != sum(a.weight for a in step.arms):
        said = f": {seen.route_message}" if seen.route_message else ""
        return False, "TrafficMoving", f"traffic is moving to revision {serving.name}{said}"
    by = rollouts.paused(model) if rollouts.is_stepped(model.spec) else ""
    held = f"; the next rollout will wait: {by}" if by else ""
    told_by = f", by {seen.route.told_by}" if seen.route and seen.route.told_by else ""
    return (
        True,
        "Complete",
        f"revision {serving.name} ({serving.variant}) has all traffic{told_by}{_elsewhere(model, serving, seen)}{held}",
    )


def _by_steps(model: Model, step: revisions.Step) -> Verdict | None:
    """What is to be said of a rollout by steps; None: nothing."""
    if step.rollout is None:
        return None
    refused = any(r.state == "RolledBack" and r.name == step.rollout.revision for r in step.revisions)
    if step.rollout.state in ONGOING or (refused and step.rollout.state == "RolledBack"):
        found = step.rollout.detection if step.rollout.state in ONGOING else ""
        told = "; ".join(filter(None, (step.rollout.message, found)))
        return False, step.rollout.state, f"model {model.metadata.name}: {told}"
    return None


def _elsewhere(model: Model, serving: RevisionStatus, seen: Observation) -> str:
    """What is to be said of replicas that serve another variant, for what their processor lacks."""
    workload = seen.workloads.get(names.workload(model.metadata.name, serving.name, serving.variant))
    otherwise = serving.recipe.otherwise
    if workload is None or otherwise is None or not workload.otherwise:
        return ""
    return (
        f"; {workload.otherwise} of {workload.wanted} replicas serve {otherwise.variant}: their processor has none of "
        f"{', '.join(otherwise.for_cpu)}, with which {serving.variant} was proven"
    )


def _ready(
    model: Model, serving: RevisionStatus | None, step: revisions.Step, rollout: Condition, seen: Observation
) -> Verdict:
    name = model.metadata.name
    if serving is None:
        return False, rollout.reason, rollout.message
    if model.spec.replicas == 0:
        return False, "NoReplicas", f"model {name}: spec.replicas is 0; set it to 1 or more to serve"
    said = f": {serving.message}" if serving.message else ""
    if serving.weight == 0 and any(other.weight and other.ready_replicas for other in step.revisions):
        return True, "TrafficMoving", rollout.message
    if serving.ready_replicas == 0:
        why = serving.reason or "NoReadyReplica"
        return False, why, f"model {name}: no replica of revision {serving.name} answers{said}"
    if serving.weight == 0:
        said = seen.route_message or f"the router does not report revision {serving.name} yet"
        return False, "NotRouted", f"model {name}: {said}"
    if rollout.reason == "Building":
        return True, "Serving", f"revision {serving.name} ({serving.variant}) serves; {rollout.message}"
    if rollout.status == "False" and rollout.reason not in ("TrafficMoving", *ONGOING):
        return True, "ServingPrevious", f"revision {serving.name} goes on serving; {rollout.message}"
    serves = f"revision {serving.name} ({serving.variant}) serves"
    wanted = step.replicas(serving, model.spec.replicas) or 0
    if serving.ready_replicas < wanted:
        return True, "Degraded", f"{serves} with {serving.ready_replicas} of {wanted} replicas{said}"
    if rollout.reason in ONGOING and not said:
        return True, "Serving", f"{serves}; {rollout.message}"
    return True, "Degraded" if said else "Serving", f"{serves}{said}"


def not_done(
    status: ModelStatus | EndpointStatus, before: Sequence[Condition], error: str, now: datetime.datetime
) -> ModelStatus | EndpointStatus:
    """``status`` of a plan that could not be carried out because of ``error``; what served goes on serving.

    ``before`` are the conditions as they are stored, so that failing again the same way changes nothing.
    """
    verdict = "NotApplied", f"a change could not be made, and is tried again: {error}"
    changed: dict[str, Verdict] = {"Ready": (False, *verdict)}
    if isinstance(status, ModelStatus):
        changed["RolloutComplete"] = (False, *verdict)
        ready = next(c for c in status.conditions if c.type == "Ready")
        if ready.status == "True":
            changed["Ready"] = True, "ServingPrevious", f"revision {status.revision} goes on serving; {verdict[1]}"
    make = functools.partial(condition, generation=status.observed_generation, before=before, at=timestamp(now))
    conditions = tuple(make(c.type, *changed[c.type]) if c.type in changed else c for c in status.conditions)
    return status.model_copy(update={"conditions": conditions})
