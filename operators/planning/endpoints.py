"""Endpoints: a stable URL over several Models, by shares."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence, Set

from operators.api.commands import ONGOING
from operators.api.endpoint import Endpoint
from operators.api.experiment import ExperimentStatus
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Observation, Outcomes, Plan, Split
from operators.api.status import EndpointStatus
from operators.planning import shadows
from operators.planning.conditions import Verdict, acted_on, condition
from operators.planning.experiments import course
from operators.planning.times import timestamp


def plan(endpoint: Endpoint, models: Sequence[Model], seen: Observation, now: datetime.datetime) -> Plan:
    """The split of traffic over an Endpoint's Models; arms that cannot answer get none, and the status says so."""
    name, generation = endpoint.metadata.name, endpoint.metadata.generation
    make = functools.partial(condition, generation=generation, before=endpoint.status.conditions, at=timestamp(now))
    if refusal := _refusal(endpoint, models, seen):
        conditions = (make("Ready", False, *refusal), make("Accepted", False, *refusal))
        before = endpoint.status
        status = EndpointStatus(
            observed_generation=generation,
            conditions=conditions,
            experiment=before.experiment,
            shadows=before.shadows,
        )
        return Plan(status=status)
    by_name = {m.metadata.name: m for m in models}
    serving = {m.metadata.name: m for m in models if m.status.revision and m.metadata.deletion_timestamp is None}
    arms = [arm for arm in endpoint.spec.arms if arm.weight]
    complete = all(arm.model in serving for arm in arms)
    told = seen.route.outcomes if seen.route is not None else {}
    found = None if seen.gateway else course.follow(endpoint, told, complete, now)
    experiment, events = found or (None, ())
    weights = {arm.name: arm.weight for arm in experiment.arms} if experiment is not None else {}
    shares = [(arm.model, weights.get(arm.name, arm.weight)) for arm in arms if arm.model in serving]
    named = {arm.name: arm.model for arm in endpoint.spec.arms if arm.model in serving}
    conditions = (
        make("Ready", *_ready(endpoint, by_name, serving.keys(), seen)),
        make("Accepted", *_accepted(endpoint, by_name.keys(), serving, seen)),
    )
    looks = (
        course.look_again_s(experiment) if experiment is not None else None,
        shadows.LOOK_S if endpoint.spec.shadow else None,
    )
    outcomes = None
    if experiment is not None and experiment.state != "Concluded":
        outcomes = Outcomes(experiment.name, experiment.metric, tuple(arm.name for arm in arms), complete)
    return Plan(
        route=Split(
            endpoint.metadata.namespace,
            name,
            _scaled(shares),
            endpoint.spec.assignment,
            named,
            outcomes,
            shadows=shadows.wanted(endpoint, serving, seen),
            share_arms=tuple(arm.name for arm in arms if arm.model in serving),
        ),
        status=EndpointStatus(
            observed_generation=generation,
            conditions=conditions,
            url=seen.url,
            experiment=experiment,
            shadows=shadows.followed(endpoint, by_name.keys(), serving, seen),
        ),
        look_again_s=min(filter(None, looks), default=None),
        reason=_shares_moved(endpoint, experiment),
        events=events,
    )


def waits(model: Model, endpoints: Sequence[Endpoint], models: Sequence[Model]) -> str:
    """Which other Model's rollout that of ``model`` waits for: arms of an Endpoint roll one at a time, the first first.

    Empty where it waits for none.
    """
    name, own = model.metadata.name, model.status.rollout
    mine = (own.began, name) if own is not None and own.state in ONGOING else None
    rolling = {m.metadata.name: m.status.rollout for m in models if m.metadata.deletion_timestamp is None}
    for endpoint in sorted(endpoints, key=lambda one: one.metadata.name):
        arms = [arm.model for arm in endpoint.spec.arms]
        for other in sorted(set(arms) - {name}) if name in arms else ():
            found = rolling.get(other)
            if found is None or found.state not in ONGOING:
                continue
            if mine is None or (found.began, other) < mine:
                what = f"model {other}, which shares endpoint {endpoint.metadata.name}"
                return f"{what}, rolls out revision {found.revision}"
    return ""


def _refusal(endpoint: Endpoint, models: Sequence[Model], seen: Observation) -> tuple[str, str] | None:
    name = endpoint.metadata.name
    if any(m.metadata.name == name for m in models):
        return "NameTaken", f"endpoint {name}: a Model of this name has the same URL; give one of them another name"
    if endpoint.spec.assignment and seen.gateway:
        why = f"{seen.gateway} cannot keep a client at one arm"
        return "NotSupported", f"endpoint {name}: spec.assignment: {why}; leave it out to assign each request by itself"
    return None


def _ready(endpoint: Endpoint, models: Mapping[str, Model], serving: Set[str], seen: Observation) -> Verdict:
    name, arms = endpoint.metadata.name, [arm for arm in endpoint.spec.arms if arm.weight]
    lost = [arm for arm in arms if arm.model not in serving]
    named = ", ".join(f"{arm.name} (model {arm.model}, weight {arm.weight})" for arm in lost)
    if len(lost) == len(arms):
        return False, "NoArmAnswers", f"endpoint {name}: no arm has a serving model: {named}"
    if lost:
        return False, "ArmsMissing", f"endpoint {name}: these arms have no serving model, the others get all: {named}"
    for arm in arms:
        ready = next((c for c in models[arm.model].status.conditions if c.type == "Ready"), None)
        if ready is None or ready.status != "True":
            said = f": {ready.message}" if ready else ""
            return False, "ModelNotReady", f"endpoint {name}: arm {arm.name}: model {arm.model} is not ready{said}"
    if seen.route is None and seen.route_message:
        return False, "NotRouted", f"endpoint {name}: {seen.route_message}"
    return True, "Serving", "every arm's model serves"


def _accepted(endpoint: Endpoint, models: Set[str], serving: Mapping[str, Model], seen: Observation) -> Verdict:
    spec, ignored = endpoint.spec, list(shadows.ignored(endpoint, models, serving, seen))
    if seen.gateway:
        said = {"spec.policy": spec.policy == "bandit", "spec.experiment": spec.experiment is not None}
        ignored += [f"{path} ({seen.gateway} counts no outcomes)" for path, given in said.items() if given]
    return acted_on(f"endpoint {endpoint.metadata.name}", ignored)


def _shares_moved(endpoint: Endpoint, now: ExperimentStatus | None) -> str:
    """What a bandit does, for the log: with it go the shares by which its outcomes are weighted."""
    before = endpoint.status.experiment
    if now is None or before is None or before.name != now.name:
        return ""
    then = {arm.name: arm.weight for arm in before.arms}
    if all(then.get(arm.name) == arm.weight for arm in now.arms):
        return ""
    said = ", ".join(f"{arm.name} {then.get(arm.name, 0) / 100:g} → {arm.weight / 100:g} %" for arm in now.arms)
    return f"bandit {now.name}: shares {said}"


def _scaled(shares: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Weights in units of 0.01 % that add up to all of it; the last share with any takes what rounding leaves."""
    total = sum(weight for _, weight in shares)
    if not total:
        return ()
    scaled = [(name, weight * FULL_WEIGHT // total) for name, weight in shares]
    last = max(place for place, (_, weight) in enumerate(scaled) if weight)
    name, weight = scaled[last]
    scaled[last] = (name, weight + FULL_WEIGHT - sum(w for _, w in scaled))
    return tuple(scaled)
