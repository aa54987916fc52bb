"""Endpoints: a stable URL over several Models, by shares."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence, Set

from operators.api.commands import ONGOING
from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Observation, Plan, Split
from operators.api.status import EndpointStatus
from operators.planning.conditions import Verdict, acted_on, condition
from operators.planning.times import timestamp


def plan(endpoint: Endpoint, models: Sequence[Model], seen: Observation, now: datetime.datetime) -> Plan:
    """The split of traffic over an Endpoint's Models; arms that cannot answer get none, and the status says so."""
    name, generation = endpoint.metadata.name, endpoint.metadata.generation
    make = functools.partial(condition, generation=generation, before=endpoint.status.conditions, at=timestamp(now))
    if refusal := _refusal(endpoint, models, seen):
        conditions = (make("Ready", False, *refusal), make("Accepted", False, *refusal))
        return Plan(status=EndpointStatus(observed_generation=generation, conditions=conditions))
    serving = {m.metadata.name for m in models if m.status.revision and m.metadata.deletion_timestamp is None}
    arms = [arm for arm in endpoint.spec.arms if arm.weight]
    shares = [(arm.model, arm.weight) for arm in arms if arm.model in serving]
    named = {arm.name: arm.model for arm in endpoint.spec.arms if arm.model in serving}
    conditions = (
        make("Ready", *_ready(endpoint, {m.metadata.name: m for m in models}, serving, seen)),
        make("Accepted", *acted_on(f"endpoint {name}", endpoint.not_acted_on())),
    )
    return Plan(
        route=Split(endpoint.metadata.namespace, name, _scaled(shares), endpoint.spec.assignment, named),
        status=EndpointStatus(observed_generation=generation, conditions=conditions, url=seen.url),
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


def _scaled(shares: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Weights in units of 0.01 % that add up to all of it; the last share takes what rounding leaves."""
    total = sum(weight for _, weight in shares)
    scaled = [(name, weight * FULL_WEIGHT // total) for name, weight in shares]
    if scaled:
        name, weight = scaled[-1]
        scaled[-1] = (name, weight + FULL_WEIGHT - sum(w for _, w in scaled))
    return tuple(scaled)
