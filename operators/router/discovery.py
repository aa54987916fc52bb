"""From what the cluster holds to the table: route ConfigMaps, and the EndpointSlices of workloads' Services; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from operators.api import routes
from operators.api.errors import InvalidObject
from operators.api.plan import Route, Split
from operators.router.table import Places, Server, Table, checked, successor

Object = dict[str, Any]

SLICES = routes.MANAGED_BY | {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
"""Labels of the slices to go by. Kubernetes copies a Service's own labels to them."""
SERVICE_LABEL = "kubernetes.io/service-name"
"""Of a slice: the Service that it belongs to. A workload's own has the workload's name."""


def table(
    before: Table, config_maps: Iterable[Object], slices: Iterable[Object], catalog: Server | None
) -> tuple[Table, list[str]]:
    """What to program, and what could not be read: that stays as it is in ``before``."""
    there = servers(slices)
    found: dict[str, Route | Split] = {}
    problems = []
    # Models after Endpoints: where one of each has the same name, the planner tells the Endpoint so.
    for config_map in sorted(config_maps, key=lambda each: str(each["metadata"]["name"].endswith("-route"))):
        namespace = config_map["metadata"]["namespace"]
        try:
            kind, name = routes.routed(config_map)
        except InvalidObject as error:
            problems.append(str(error))
            continue
        key = f"{namespace}/{name}"
        places = before.models.get(key)
        try:
            wanted = checked(routes.route(config_map))
        except InvalidObject as error:
            problems.append(f"{error}; what it said before goes on")
            if kind is Route and places is not None:
                found[key] = places.route(key)
            elif kind is Split and key in before.endpoints:
                found[key] = before.endpoints[key]
            continue
        found[key] = _when_there(wanted, places, there) if isinstance(wanted, Route) else wanted
    return successor(before, found.values(), there, catalog), problems


def servers(slices: Iterable[Object]) -> dict[str, tuple[Server, ...]]:
    """Servers by NAMESPACE/WORKLOAD: those that are ready, and where none is, those that end but still answer."""
    ready: dict[str, set[Server]] = {}
    ending: dict[str, set[Server]] = {}
    for one in slices:
        labels = one["metadata"].get("labels") or {}
        ports = {port.get("name"): port.get("port") for port in one.get("ports") or ()}
        http, grpc = ports.get(routes.HTTP_PORT), ports.get(routes.GRPC_PORT)
        if routes.WORKLOAD_LABEL not in labels or not http or not grpc or one["addressType"] == "FQDN":
            continue
        if labels.get(SERVICE_LABEL, labels[routes.WORKLOAD_LABEL]) != labels[routes.WORKLOAD_LABEL]:
            continue  # of another Service of the same pods: who makes them may copy our labels
        key = f"{one['metadata']['namespace']}/{labels[routes.WORKLOAD_LABEL]}"
        over_http1 = labels.get(routes.GRPC_OVER_HTTP1_LABEL) == "true"
        for endpoint in one.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            server = Server(endpoint["addresses"][0], http, grpc, over_http1)
            if conditions.get("terminating"):
                if conditions.get("serving"):
                    ending.setdefault(key, set()).add(server)
            elif conditions.get("ready") is not False:
                ready.setdefault(key, set()).add(server)
    return {key: tuple(sorted(of, key=lambda server: server.host)) for key, of in (ending | ready).items()}


def _when_there(wanted: Route, before: Places | None, there: Mapping[str, tuple[Server, ...]]) -> Route:
    """``wanted``, or the arms of before while one that is to get traffic has no server here and those have.

    Operator and router see a pod become ready each at its own time.
    """

    def has_server(workload: str) -> bool:
        return bool(there.get(f"{wanted.namespace}/{workload}"))

    if before is None or all(has_server(arm.workload) for arm in wanted.arms if arm.weight):
        return wanted
    if any(has_server(arm.workload) for arm in before.arms if arm.weight):
        return dataclasses.replace(wanted, arms=before.arms)
    return wanted
