"""What operator and router tell each other, through ConfigMaps.

The operator writes one for each Model and Endpoint: where its traffic should go. Each router replica writes one for
itself: where the traffic that it gets does go. Route maps lie in namespaces that others may write to, so what is read
here is checked in every part that gets into a name or a header.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pydantic
from pydantic import Field, StringConstraints, TypeAdapter

from operators.api import counted, outcomes
from operators.api.base import GROUP, Name, Seen
from operators.api.contract import Detections
from operators.api.endpoint import Assignment
from operators.api.errors import InvalidObject
from operators.api.plan import FULL_WEIGHT, Arm, Mirror, Outcomes, Route, RouteObserved, Shadow, Split

Object = dict[str, Any]

MANAGED_BY = {"app.kubernetes.io/managed-by": "penstock"}
MODEL_LABEL = f"{GROUP}/model"
ENDPOINT_LABEL = f"{GROUP}/endpoint"
WORKLOAD_LABEL = f"{GROUP}/workload"
ROUTE_LABEL = f"{GROUP}/route"
ROUTE_KEY = "route.json"
MODEL_SUFFIX, ENDPOINT_SUFFIX = "-route", "-split"
"""Of the name of a route's object; before it stands the name of the Model or Endpoint."""
REPORT_LABEL = f"{GROUP}/router-report"
GRPC_OVER_HTTP1_LABEL = f"{GROUP}/grpc-over-http1"
"""On a workload's Service, and so on its EndpointSlices: unary gRPC is taken on port ``http`` too."""
HTTP_PORT, GRPC_PORT = "http", "h2c"
"""Names of a workload's ports."""
ROUTER_LABELS = {"app.kubernetes.io/name": "penstock", "app.kubernetes.io/component": "router"}
"""On the router's pods."""

Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)]
Header = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=256)]
Cookie = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=256)]
Weight = Annotated[int, Field(ge=0, le=FULL_WEIGHT)]


class _Arm(Seen):
    workload: Name
    revision: Word
    variant: Word
    weight: Weight


class _Assignment(Seen):
    header: Header | None = None
    cookie: Cookie | None = None


class _Output(Seen):
    labels: bool | None = None
    detections: Detections | None = None


class _Compare(Seen):
    output: _Output | None = None
    tolerance: Annotated[float, Field(ge=0, le=1)] | None = None
    top: Annotated[int, Field(ge=1)] | None = None


class _Mirror(Seen):
    revision: Word
    weight: Weight
    compare: _Compare


class _Route(Seen):
    arms: Annotated[tuple[_Arm, ...], Field(max_length=2)]
    message: str = ""
    observe: bool = False
    mirror: _Mirror | None = None
    assignment: _Assignment | None = None
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    feedback: bool = False


class _Outcomes(Seen):
    experiment: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}$")]
    metric: Annotated[str, Field(max_length=64)]
    arms: tuple[Name, ...]
    assigns: bool


class _Shadow(Seen):
    model: Name
    weight: Weight
    compare: _Compare


class _Split(Seen):
    shares: tuple[tuple[Name, Weight], ...]
    assignment: _Assignment | None = None
    names: dict[Name, Name] = {}
    shadows: Annotated[tuple[_Shadow, ...], Field(max_length=8)] = ()
    outcomes: _Outcomes | None = None
    share_arms: tuple[Name, ...] = ()

    @pydantic.model_validator(mode="after")
    def _arm_of_each_share(self) -> _Split:
        told = self.outcomes
        if told is not None and told.assigns and len(told.arms) != len(self.shares):
            raise ValueError(f"outcomes of {len(told.arms)} arms are assigned, and there are {len(self.shares)} shares")
        if self.share_arms and len(self.share_arms) != len(self.shares):
            raise ValueError(f"{len(self.share_arms)} arms are named, and there are {len(self.shares)} shares")
        return self


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def route_data(route: Route | Split) -> dict[str, str]:
    """Content of the ConfigMap of a route."""
    if isinstance(route, Route):
        arms = [
            {"workload": a.workload, "revision": a.revision, "variant": a.variant, "weight": a.weight}
            for a in route.arms
        ]
        body: Object = {"arms": arms, "message": route.message} | ({"observe": True} if route.observe else {})
        if (to := route.mirror) is not None:
            body["mirror"] = {"revision": to.revision, "weight": to.weight, "compare": json.loads(to.compare)}
        body |= {"max_concurrent": route.max_concurrent} if route.max_concurrent else {}
        body |= {"feedback": True} if route.feedback else {}
    else:
        body = {"shares": [list(share) for share in route.shares], "names": dict(route.names)}
        body |= {"share_arms": list(route.share_arms)} if route.share_arms else {}
        body |= {"outcomes": dataclasses.asdict(route.outcomes)} if route.outcomes is not None else {}
        if route.shadows:
            body["shadows"] = [
                {"model": to.model, "weight": to.weight, "compare": json.loads(to.compare)} for to in route.shadows
            ]
    if route.assignment is not None:
        body["assignment"] = route.assignment.to_dict()
    return {ROUTE_KEY: json.dumps(body, sort_keys=True)}


def routed(config_map: Object) -> tuple[type[Route] | type[Split], str]:
    """Of which kind the route in a ConfigMap is, and whose; told by its name alone.

    Raises ``InvalidObject`` if that is no name of a Model or Endpoint.
    """
    name = config_map["metadata"]["name"]
    for kind, suffix in ((Route, MODEL_SUFFIX), (Split, ENDPOINT_SUFFIX)):
        if name.endswith(suffix):
            try:
                return kind, _NAME.validate_python(name.removesuffix(suffix))
            except pydantic.ValidationError:
                break
    raise InvalidObject(f"ConfigMap {_whose(config_map)}: its name is none of a route; delete it")


def route(config_map: Object) -> Route | Split:
    """The route in a ConfigMap; raises ``InvalidObject`` if it is none."""
    kind, name = routed(config_map)
    namespace, text = config_map["metadata"]["namespace"], (config_map.get("data") or {}).get(ROUTE_KEY, "")
    try:
        if kind is Split:
            split = _Split.model_validate_json(text)
            told = split.outcomes
            taken = Outcomes(told.experiment, told.metric, told.arms, told.assigns) if told is not None else None
            shadows = tuple(Shadow(to.model, to.weight, _compare(to.compare)) for to in split.shadows)
            assignment = _assignment(split.assignment)
            return Split(
                namespace,
                name,
                split.shares,
                assignment,
                split.names,
                taken,
                shadows=shadows,
                share_arms=split.share_arms,
            )
        found = _Route.model_validate_json(text)
        arms = tuple(Arm(arm.workload, arm.revision, arm.variant, arm.weight) for arm in found.arms)
        return Route(
            namespace,
            name,
            arms,
            found.message,
            found.observe,
            _mirror(found.mirror),
            _assignment(found.assignment),
            found.max_concurrent,
            found.feedback,
        )
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or ROUTE_KEY}: {e['msg']}" for e in error.errors())
        raise InvalidObject(
            f"ConfigMap {_whose(config_map)}: {problems}; delete it, and the operator writes it anew"
        ) from error


def report(namespace: str, pod: str, pod_uid: str, seen: Mapping[tuple[str, str], RouteObserved]) -> Object:
    """The ConfigMap in which the router in ``pod`` tells what it does with the Models (namespace, name) it knows.

    It names workloads that get no new requests and still have some, never how many: a steady state is not to be
    written. One Model takes about 100 bytes of the 1 MiB that a ConfigMap holds; one that is counted, and so has no
    steady state, 1 to 2 KiB more for each arm.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": pod,
            "namespace": namespace,
            "labels": MANAGED_BY | {REPORT_LABEL: "true"},
            # Garbage-collected with the pod.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod_uid}],
        },
        "data": {_key(*model): _told(of) for model, of in sorted(seen.items())},
    }


def reported(report: Object, namespace: str, name: str) -> RouteObserved | None:
    """What a router's report says of a Model; None where it does not know it, or says nothing that can be read."""
    try:
        found = json.loads((report.get("data") or {})[_key(namespace, name)])
        arms = tuple(Arm(str(w), str(r), str(v), int(weight)) for w, r, v, weight in found["arms"])
        in_flight = {arm.workload: 0 for arm in arms if arm.weight} | {str(w): 1 for w in found.get("busy", [])}
        counts, read_s = counted.read(found.get("counts", {}), report["metadata"]["name"])
        told = outcomes.read(found.get("outcomes", {}), report["metadata"]["name"])
    except (LookupError, ValueError, TypeError):
        return None
    return RouteObserved(arms, in_flight, counts=counts, read_s=read_s, outcomes=told)


def changed(before: Object | None, after: Object | None) -> Iterable[tuple[str, str]]:
    """Models, as (namespace, name), of which two versions of a report say different things."""
    one, other = ((each or {}).get("data") or {} for each in (before, after))
    for key in one.keys() | other.keys():
        if one.get(key) != other.get(key):
            namespace, _, name = key.partition(".")
            yield namespace, name


def together(seen: Sequence[RouteObserved | None]) -> RouteObserved | None:
    """What several routers do with a Model as one: an arm is gone when all are rid of it.

    Each gets an equal part of the traffic, so an arm's weight is the mean; it is 0 as long as one of them does not
    know the Model. None where none does.
    """
    known = [of for of in seen if of is not None]
    if not known:
        return None
    arms: dict[str, Arm] = {}
    in_flight: dict[str, int] = {}
    for of in known:
        for arm in of.arms:
            before = arms[arm.workload].weight if arm.workload in arms else 0
            arms[arm.workload] = Arm(arm.workload, arm.revision, arm.variant, before + arm.weight)
        for workload, requests in of.in_flight.items():
            in_flight[workload] = in_flight.get(workload, 0) + requests
    whole = len(known) == len(seen)
    return RouteObserved(
        tuple(
            Arm(a.workload, a.revision, a.variant, a.weight // len(known) if whole else 0)
            for _, a in sorted(arms.items())
        ),
        in_flight,
        counts={source: counts for of in known for source, counts in of.counts.items()},
        read_s={source: read_s for of in known for source, read_s in of.read_s.items()},
        outcomes={source: told for of in known for source, told in of.outcomes.items()},
    )


def _told(seen: RouteObserved) -> str:
    arms = [[arm.workload, arm.revision, arm.variant, arm.weight] for arm in seen.arms]
    # One that is named at all has requests under way, or may be sent one on a client's old connection.
    busy = sorted(seen.in_flight.keys() - {arm.workload for arm in seen.arms if arm.weight})
    counts = counted.told(seen)
    told = {"arms": arms} | ({"busy": busy} if busy else {}) | ({"counts": counts} if counts else {})
    told |= {"outcomes": outcomes.told(seen.outcomes)} if seen.outcomes else {}
    return json.dumps(told, separators=(",", ":"))


def _mirror(found: _Mirror | None) -> Mirror | None:
    if found is None:
        return None
    return Mirror(found.revision, found.weight, _compare(found.compare))


def _compare(found: _Compare) -> str:
    return json.dumps(found.to_dict(), sort_keys=True)


def _assignment(found: _Assignment | None) -> Assignment | None:
    """None also where a later version of the operator goes by something that is not known here."""
    if found is None or not (found.header or found.cookie):
        return None
    return Assignment(header=found.header, cookie=found.cookie)


def _key(namespace: str, name: str) -> str:
    # Neither holds a dot.
    return f"{namespace}.{name}"


def _whose(config_map: Object) -> str:
    return f"{config_map['metadata']['namespace']}/{config_map['metadata']['name']}"
