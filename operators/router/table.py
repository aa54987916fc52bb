"""The route table: everything the router needs to know, as one value.

A Model has two places for arms, ``a`` and ``b``. An arm keeps its place while it lives and a new arm takes the free
one, so that one revision follows the other by moving a single number between the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from operators.api.endpoint import Assignment
from operators.api.errors import InvalidObject
from operators.api.plan import FULL_WEIGHT, Arm, Mirror, Route, Split


@dataclasses.dataclass(frozen=True)
class Server:
    """One process that answers for a workload."""

    host: str
    http_port: int
    grpc_port: int
    grpc_over_http1: bool
    """Unary gRPC is taken on ``http_port``, as HTTP/1.1 with trailers."""


@dataclasses.dataclass(frozen=True)
class Places:
    """The arms of one Model. Both free or without servers: nothing serves it, and ``message`` says why."""

    a: Arm | None = None
    b: Arm | None = None
    message: str = ""
    replicated: bool = False
    """One of its arms has, or has had, more than one server: a request that a server did not answer may get another."""
    observe: bool = False
    mirror: Mirror | None = None
    assignment: Assignment | None = None
    max_concurrent: int | None = None
    feedback: bool = False

    @property
    def placed(self) -> tuple[tuple[str, Arm], ...]:
        """The arms, each with its place."""
        return tuple((place, arm) for place, arm in (("a", self.a), ("b", self.b)) if arm is not None)

    @property
    def arms(self) -> tuple[Arm, ...]:
        return tuple(arm for _, arm in self.placed)

    def route(self, key: str) -> Route:
        """The route that led to these places."""
        namespace, _, name = key.partition("/")
        return Route(
            namespace,
            name,
            self.arms,
            self.message,
            self.observe,
            self.mirror,
            self.assignment,
            self.max_concurrent,
            self.feedback,
        )

    @property
    def weight_of_a(self) -> int:
        return 0 if self.a is None else self.a.weight


@dataclasses.dataclass(frozen=True)
class Table:
    """Keys are NAMESPACE/NAME; those of ``servers`` NAMESPACE/WORKLOAD."""

    models: Mapping[str, Places] = dataclasses.field(default_factory=dict)
    endpoints: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    servers: Mapping[str, tuple[Server, ...]] = dataclasses.field(default_factory=dict)
    catalog: Server | None = None
    """Answers for what has no server."""

    def serves(self, key: str) -> bool:
        """Whether a Model's traffic has a server to go to."""
        namespace = key.partition("/")[0]
        return any(arm.weight and self.servers.get(f"{namespace}/{arm.workload}") for arm in self.models[key].arms)


def successor(
    before: Table,
    routes: Iterable[Route | Split],
    servers: Mapping[str, tuple[Server, ...]],
    catalog: Server | None,
) -> Table:
    """The table of ``routes`` in which every arm that stays keeps its place.

    Raises ``InvalidObject`` for a route that is not ``checked``.
    """
    models: dict[str, Places] = {}
    endpoints: dict[str, Split] = {}
    for route in routes:
        key = f"{route.namespace}/{route.name}"
        route = checked(route)
        if isinstance(route, Split):
            endpoints[key] = route
        else:
            old = before.models.get(key, Places())
            replicas = (len(servers.get(f"{route.namespace}/{arm.workload}", ())) for arm in route.arms)
            # To forget this when one of two dies would be a reload at the worst moment.
            replicated = old.replicated or any(number > 1 for number in replicas)
            models[key] = dataclasses.replace(_placed(route, old), replicated=replicated)
    used = {f"{key.partition('/')[0]}/{arm.workload}" for key, places in models.items() for arm in places.arms}
    return Table(models, endpoints, {name: servers[name] for name in sorted(used) if servers.get(name)}, catalog)


def checked(route: Route | Split) -> Route | Split:
    """``route``, which the router can hold.

    Raises ``InvalidObject`` for a Route with more than two arms, and for weights that do not add up.
    """
    key = f"{route.namespace}/{route.name}"
    weights = [weight for _, weight in route.shares] if isinstance(route, Split) else [arm.weight for arm in route.arms]
    if weights and (sum(weights) != FULL_WEIGHT or any(weight < 0 for weight in weights)):
        raise InvalidObject(f"route {key}: weights {weights} do not add up to {FULL_WEIGHT}; correct the weights")
    if isinstance(route, Route) and len(route.arms) > 2:
        raise InvalidObject(
            f"route {key} has {len(route.arms)} arms "
            f"({', '.join(arm.workload for arm in route.arms)}), the router holds 2; finish one rollout before the next"
        )
    return route


def _placed(route: Route, before: Places) -> Places:
    new = {arm.workload: arm for arm in route.arms}
    places = {"a": before.a, "b": before.b}
    kept = {place: new.pop(arm.workload) for place, arm in places.items() if arm is not None and arm.workload in new}
    free = sorted((-1 if arm is None else arm.weight, place) for place, arm in places.items() if place not in kept)
    taken = {place: arm for (_, place), arm in zip(free, new.values(), strict=False)}
    placed = kept | taken
    return Places(
        placed.get("a"),
        placed.get("b"),
        route.message,
        observe=route.observe,
        mirror=route.mirror,
        assignment=route.assignment,
        max_concurrent=route.max_concurrent,
        feedback=route.feedback,
    )
