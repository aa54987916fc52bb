"""Routes as HTTPRoute and GRPCRoute, for a cluster whose own Gateway carries the traffic instead of our router.

The URL has the same form, ``/NAMESPACE/NAME/v2/…``. A gRPC call names its Model in metadata, since Gateway API does not
look into messages. Used are the core of Gateway API, its path rewrite and, for Endpoints alone, a rewrite for each
backend. Where nothing serves a Model its routes have no backends, which a Gateway answers with an error of its own.

A Gateway tells by status that it has read a route, and not that its proxies do what the route says. So a route counts
as done when its status has been current for ``SETTLE_S``, and ``RouteObserved.told_by`` says whose word that is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from operators.actuators.kubernetes import makers
from operators.actuators.kubernetes.resources import GRPC_ROUTES, HTTP_ROUTES
from operators.api.plan import FULL_WEIGHT, Arm, Key, Route, RouteObserved, Split, Workload
from operators.api.routes import ENDPOINT_LABEL, MANAGED_BY, MODEL_LABEL
from operators.runtime.cache import Cache
from operators.runtime.resource import Object, ObjectKey
from serving import contract

SETTLE_S = 5.0
"""From the status to the traffic. Measured with Traefik 3.7: the status was first 54 times of 54, by up to 2 s."""
MAX_WEIGHT = 1_000_000
"""The greatest weight of a backend in Gateway API."""


def routes(route: Route, workloads: Sequence[Workload], gateway: ObjectKey, owner: Object) -> tuple[Object, Object]:
    """A Model's HTTPRoute and GRPCRoute."""
    ports = {workload.name: workload.runtime.ports for workload in workloads}
    http = [{"name": a.workload, "port": ports[a.workload].http, "weight": a.weight} for a in route.arms]
    grpc = [{"name": a.workload, "port": ports[a.workload].grpc, "weight": a.weight} for a in route.arms]
    call = {"name": contract.MODEL_METADATA_KEY, "value": f"{route.namespace}/{route.name}"}
    return (
        _object(HTTP_ROUTES.kind, route, gateway, owner, [_stripped(route, http)]),
        _object(GRPC_ROUTES.kind, route, gateway, owner, [{"matches": [{"headers": [call]}], "backendRefs": grpc}]),
    )


def split_route(split: Split, backends: Mapping[str, Sequence[Object]], gateway: ObjectKey, owner: Object) -> Object:
    """An Endpoint's HTTPRoute over ``backends``, those of each Model's own HTTPRoute.

    A server knows its Model's name and not the Endpoint's, so paths are rewritten for each backend.
    """
    shared = [
        (model, {**backend, "weight": share * backend["weight"] * MAX_WEIGHT // FULL_WEIGHT**2})
        for model, share in split.shares
        for backend in backends.get(model, ())
    ]
    prefix = f"/{split.namespace}/{split.name}"
    rules: list[Object] = []
    for match, replace, path, end in (
        ("PathPrefix", "ReplacePrefixMatch", "/v2/models/", ""),
        ("PathPrefix", "ReplacePrefixMatch", "/v1/models/", ""),
        ("Exact", "ReplaceFullPath", "/v1/models/", ":predict"),
    ):
        refs = [{**ref, "filters": [_rewrite(replace, f"{path}{model}{end}")]} for model, ref in shared]
        matches = [{"path": {"type": match, "value": f"{prefix}{path}{split.name}{end}"}}]
        rules.append({"matches": matches, "backendRefs": refs})
    return _object(HTTP_ROUTES.kind, split, gateway, owner, [*rules, _stripped(split, [ref for _, ref in shared])])


def _stripped(route: Route | Split, backends: Sequence[Object]) -> Object:
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": f"/{route.namespace}/{route.name}"}}],
        "filters": [_rewrite("ReplacePrefixMatch", "/")],
        "backendRefs": list(backends),
    }


def _rewrite(how: str, to: str) -> Object:
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": how, how[0].lower() + how[1:]: to}}}


def _object(kind: str, route: Route | Split, gateway: ObjectKey, owner: Object, rules: Sequence[Object]) -> Object:
    label = MODEL_LABEL if isinstance(route, Route) else ENDPOINT_LABEL
    return {
        "apiVersion": HTTP_ROUTES.api_version,
        "kind": kind,
        "metadata": {
            "name": makers.route_name("Model" if isinstance(route, Route) else "Endpoint", route.name),
            "namespace": route.namespace,
            "labels": MANAGED_BY | {label: route.name},
            "ownerReferences": [owner],
        },
        "spec": {"parentRefs": [{"namespace": gateway.namespace, "name": gateway.name}], "rules": list(rules)},
    }


def taken_up(route: Object, gateway: ObjectKey) -> tuple[bool | None, str]:
    """Whether ``gateway`` says that it does what ``route`` asks for now; None: it has said nothing of it yet."""
    what = f"{route['kind']} {route['metadata']['name']}"
    conditions = [
        condition
        for parent in route.get("status", {}).get("parents", [])
        if parent["parentRef"]["name"] == gateway.name
        and parent["parentRef"].get("namespace", route["metadata"]["namespace"]) == gateway.namespace
        for condition in parent.get("conditions", [])
        if condition["type"] in ("Accepted", "ResolvedRefs")
        and condition.get("observedGeneration") == route["metadata"]["generation"]
    ]
    for condition in conditions:
        if condition["status"] != "True":
            said = f"{condition['type']} is {condition['status']}: {condition['reason']} {condition['message']}".strip()
            namespace = route["metadata"]["namespace"]
            needs = f"it needs a listener that allows {route['kind']}s of namespace {namespace}, and those alone"
            step = f"; {needs}" if condition["type"] == "Accepted" else ""
            return False, f"{_name(gateway)} does not take up {what}: {said}{step}"
    if {condition["type"] for condition in conditions} < {"Accepted", "ResolvedRefs"}:
        return None, f"{_name(gateway)} has not taken up {what} yet"
    return True, ""


def _backends(route: Object) -> dict[str, int]:
    """Weights of the workloads that a route sends to."""
    rules = route["spec"].get("rules", [])
    return {ref["name"]: ref["weight"] for rule in rules for ref in rule.get("backendRefs", [])}


def models_behind(route: Object, service: Callable[[str, str], Object | None]) -> Iterator[Key]:
    """The Models whose workloads ``route`` sends to, an Endpoint's too: they wait until it is taken up.

    ``service`` gives the Service of a namespace and name, which has the name of its workload.
    """
    namespace = route["metadata"]["namespace"]
    for workload in _backends(route):
        labels = (service(namespace, workload) or {"metadata": {}})["metadata"].get("labels") or {}
        if MODEL_LABEL in labels:
            yield Key("Model", namespace, labels[MODEL_LABEL])


def url(gateway: Object | None) -> str:
    """Where clients reach ``gateway`` by HTTP; empty while it has no address."""
    addresses = (gateway or {}).get("status", {}).get("addresses", [])
    for listener in (gateway or {}).get("spec", {}).get("listeners", []) if addresses else []:
        kinds = [kind["kind"] for kind in listener.get("allowedRoutes", {}).get("kinds", [])] or [HTTP_ROUTES.kind]
        if listener["protocol"] in ("HTTP", "HTTPS") and HTTP_ROUTES.kind in kinds:
            host = addresses[0]["value"]
            host = f"[{host}]" if ":" in host else host
            usual = 80 if listener["protocol"] == "HTTP" else 443
            port = "" if listener["port"] == usual else f":{listener['port']}"
            return f"{listener['protocol'].lower()}://{host}{port}"
    return ""


def _name(gateway: ObjectKey) -> str:
    return f"Gateway {gateway.namespace}/{gateway.name}"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of an object's routes."""

    route: RouteObserved | None = None
    """None: there is none, or it is refused."""
    message: str = ""
    """Why what was asked does not count as done."""
    look_again_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Current:
    """Which generations of which routes the status speaks of, and since when this process knows, in seconds."""

    generations: frozenset[tuple[str, int]] | None
    """None: it does not speak of all that is asked now."""
    since_s: float


def observe(
    own: Sequence[Object],
    others: Sequence[Object],
    gateway: ObjectKey,
    before: Mapping[str, Arm],
    known: Current | None,
    now_s: float,
) -> tuple[Seen, Current]:
    """What is known of the routes ``own`` of one object, and what to remember of it.

    ``before`` has an arm for each of its workloads, with the weight that was reported last; that stands until the
    status has been current for ``SETTLE_S``. ``others`` send to the same workloads: an Endpoint's. A process that has
    just started (``known`` is None) takes a current status that agrees with ``before`` for settled.
    """
    verdicts = [taken_up(route, gateway) for route in (*own, *others)]
    refused = next((message for done, message in verdicts[: len(own)] if done is False), "")
    pending = next((message for done, message in verdicts if done is None), "")
    asked = {workload: 0 for route in (*own, *others) for workload in _backends(route)} | _backends(own[0])
    generations = None
    if not (refused or pending):
        generations = frozenset((r["metadata"]["uid"], r["metadata"]["generation"]) for r in (*own, *others))
    if known is None and generations and _weights(before) == {w: weight for w, weight in asked.items() if weight}:
        known = Current(generations, now_s - SETTLE_S)
    elif known is None or known.generations != generations:
        known = Current(generations, now_s)
    told_by = f"the status of {_name(gateway)}"
    if refused:
        return Seen(message=refused), known
    left_s = known.since_s + SETTLE_S - now_s
    if generations and left_s <= 0:
        arms = (dataclasses.replace(before.get(w, Arm(w, "", "", 0)), weight=weight) for w, weight in asked.items())
        return Seen(RouteObserved(tuple(arms), told_by=told_by)), known
    stands = RouteObserved(tuple(arm for arm in before.values() if arm.weight), told_by=told_by)
    waits = f"{_name(gateway)} has taken up the routes, which its proxies get {SETTLE_S:g} s to follow"
    return Seen(stands, pending or waits, left_s if generations else None), known


def _weights(arms: Mapping[str, Arm]) -> dict[str, int]:
    return {arm.workload: arm.weight for arm in arms.values() if arm.weight}


@dataclasses.dataclass(frozen=True)
class Gateway:
    """The routes of one Gateway. ``clock`` is in seconds, from any beginning."""

    key: ObjectKey
    gateways: Cache
    http_routes: Cache
    grpc_routes: Cache
    clock: Callable[[], float]
    _known: dict[Key, Current] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return _name(self.key)

    def url(self) -> str:
        """Where clients reach it; empty while it has no address."""
        return url(self.gateways.get(*self.key))

    def children(
        self, route: Route | Split, workloads: Sequence[Workload], owner: Object
    ) -> list[tuple[Cache, Object]]:
        """What should exist for ``route``."""
        if isinstance(route, Route):
            return list(zip(self._caches("Model"), routes(route, workloads, self.key, owner), strict=True))
        found = {}
        for model, _ in route.shares:
            live = self.http_routes.get(route.namespace, makers.route_name("Model", model))
            found[model] = live["spec"]["rules"][0].get("backendRefs", []) if live else []
        return [(self.http_routes, split_route(route, found, self.key, owner))]

    def observe(self, key: Key, before: Mapping[str, Arm]) -> Seen:
        """What is known of the routes of ``key``; for ``before`` see the function of the same name."""
        name = makers.route_name(key.kind, key.name)
        own = [route for cache in self._caches(key.kind) if (route := cache.get(key.namespace, name))]
        if len(own) < len(self._caches(key.kind)):
            self._known.pop(key, None)
            return Seen(message=f"{self} has no route of it yet")
        others = [
            route
            for route in self.http_routes.list(key.namespace)
            if route not in own and _backends(route).keys() & before.keys()
        ]
        seen, self._known[key] = observe(own, others, self.key, before, self._known.get(key), self.clock())
        return seen

    def _caches(self, kind: str) -> tuple[Cache, ...]:
        return (self.http_routes, self.grpc_routes) if kind == "Model" else (self.http_routes,)
