"""``KubernetesActuator``: server-side apply of what a plan names, deletion of what it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from operators.actuators.kubernetes import diagnosis, drift, makers, observing
from operators.actuators.kubernetes.building import Building
from operators.actuators.kubernetes.carriers import CARRIERS
from operators.actuators.kubernetes.events import Events
from operators.actuators.kubernetes.gateway import Gateway
from operators.actuators.kubernetes.isolation import Isolation
from operators.actuators.kubernetes.resources import DEPLOYMENTS, Children, Routers
from operators.api import routes
from operators.api.errors import Conflict, OperatorError
from operators.api.kinds import parse
from operators.api.model import Model
from operators.api.plan import Arm, Key, Observation, Plan, Workload, WorkloadObserved
from operators.runtime.cache import Cache
from operators.runtime.connection import Connection
from operators.runtime.errors import ApiError
from operators.runtime.resource import Object, Resource, key_of


@dataclasses.dataclass(frozen=True)
class KubernetesActuator:
    """Acts through ``connection`` on what ``children`` shows; ``owners`` holds the objects acted for, by kind."""

    connection: Connection
    owners: dict[str, Cache]
    children: Children
    routers: Routers
    fetch_image: str
    building: Building
    events: Events
    router_url: str
    """Where clients reach the router, without a trailing slash."""
    gateway: Gateway | None = None
    """Carries the traffic instead of our router."""
    isolation: Isolation | None = None
    """Who may reach model pods; None: the cluster's own policies say so."""
    cache_url: str | None = None
    """Cache of artifacts on every node, which pods ask before the source."""

    async def observe(self, key: Key) -> Observation:
        """Facts about ``key`` from the caches."""
        owner = self.owners[key.kind].get(key.namespace, key.name)
        if key.kind != "Model" or owner is None:
            return self._routed(key, Observation(), {})
        model = parse(owner)
        assert isinstance(model, Model)
        locations = [model.spec.source, *(v.source for v in model.spec.variants if v.source)]
        carried = list(self._carried(key, owner["metadata"]["uid"]))
        workloads = {key_of(live).name: self._workload(kind, live) for kind, live in carried}
        fetches = dict(observing.fetch(location) for location in locations)
        builds = self.building.observe(key)
        for built in builds.values():
            fetches |= observing.published(built)
        seen = Observation(
            fetches=fetches,
            workloads=workloads,
            builds=builds,
            cannot_build=self.building.hindrance,
            cannot_deploy_as={
                kind: CARRIERS[kind].missing for kind, cache in self.children.carriers.items() if not cache.is_served
            },
        )
        weights = {revision.name: revision.weight for revision in model.status.revisions}
        return self._routed(key, seen, {key_of(live).name: observing.arm(live, weights) for _, live in carried})

    def _carried(self, key: Key, owner_uid: str) -> Iterator[tuple[str, Object]]:
        """What carries the workloads of a Model, by kind. What was made for it by others has the same labels."""
        for kind, cache in self.children.carriers.items():
            for live in cache.list(key.namespace, observing.labels(key.name)):
                if _owned_by(live, owner_uid):
                    yield kind, live

    def _workload(self, kind: str, live: Object) -> WorkloadObserved:
        namespace, name = key_of(live)
        labels, deployments = {routes.WORKLOAD_LABEL: name}, self.children.carriers[DEPLOYMENTS.kind]
        made = [other for other in deployments.list(namespace, labels) if _owned_by(other, live["metadata"]["uid"])]
        return CARRIERS[kind].observe(live, made, self.children.pods.list(namespace, labels))

    def _routed(self, key: Key, seen: Observation, before: Mapping[str, Arm]) -> Observation:
        """``seen`` with what is known of the route; ``before`` is what was reported of each workload last."""
        path = f"/{key.namespace}/{key.name}/v2/models/{key.name}"
        if self.gateway is None:
            pods, reports = self.routers.pods.list(), self.routers.reports.list()
            route = observing.route(key.namespace, key.name, pods, reports)
            return dataclasses.replace(seen, route=route, url=self.router_url + path)
        base, found = self.gateway.url() or self.router_url, self.gateway.observe(key, before)
        return dataclasses.replace(
            seen,
            route=found.route,
            route_message=found.message,
            url=base + path if base else "",
            gateway=str(self.gateway),
            look_again_s=found.look_again_s,
        )

    async def act(self, key: Key, plan: Plan) -> None:
        """Tell what was decided, then apply what differs; replicas after what shields them, the route after them,
        deletions at last.

        A child that is refused (by quota, policy, a name that is taken) does not stop its siblings.

        The children of an object that is gone are left to the garbage collector, which follows ownership.
        """
        owner = self.owners[key.kind].get(key.namespace, key.name)
        if owner is None or owner["metadata"].get("deletionTimestamp"):
            return
        for event in plan.events:
            # At first: what fails below is tried again, what was decided is kept, and not decided again.
            await self.events.tell(key, owner["metadata"]["uid"], event)
        reference = makers.owner(key, owner["metadata"]["uid"])
        wanted: list[tuple[Cache, Object]] = []
        if self.isolation and plan.workloads:
            wanted.append((self.isolation.policies, self.isolation.policy(key, plan.workloads, reference)))
        if self.isolation and plan.builds:
            wanted.append((self.isolation.policies, self.isolation.of_builds(key, plan.builds, reference)))
        for workload in plan.workloads:
            kind, pod = workload.runtime.deploy_as, self._pod(workload)
            wanted.append((self.children.carriers[kind], CARRIERS[kind].make(workload, reference, pod)))
            wanted.append((self.children.services, makers.service(workload, reference, CARRIERS[kind].selects)))
        if plan.route is not None and self.gateway is not None:
            wanted += self.gateway.children(plan.route, plan.workloads, reference)
        elif plan.route is not None:
            wanted.append((self.children.config_maps, makers.route(plan.route, reference)))
        failures = []
        for cache, child in wanted:
            try:
                await self._apply(cache, child, owner["metadata"]["uid"])
            except ApiError as error:
                failures.append(diagnosis.refusal(error.message).message if error.status == 403 else str(error))
            except Conflict as error:
                failures.append(str(error))
        if failures:
            raise OperatorError("; ".join(failures))
        names = {(cache.resource, key_of(child)) for cache, child in wanted}
        for resource, child in self._existing(key):
            # What others make of our children has our labels, too.
            if (resource, key_of(child)) not in names and _owned_by(child, owner["metadata"]["uid"]):
                await self.connection.delete(resource, child)
        if key.kind == "Model":
            # At last: nothing that serves waits for a build.
            await self.building.act(key, reference, plan.builds)

    def _pod(self, workload: Workload) -> Object:
        return makers.pod(workload, self.fetch_image, self.cache_url, is_routed=self.gateway is None)

    async def _apply(self, cache: Cache, wanted: Object, owner_uid: str) -> None:
        live = cache.get(*key_of(wanted))
        if live is not None and not _owned_by(live, owner_uid):
            kind, name = cache.resource.kind, live["metadata"]["name"]
            raise Conflict(
                f"{kind} {name} exists and belongs to somebody else; rename it or the object that needs this name"
            )
        stamped = drift.stamped(wanted)
        if live is None or drift.differs(stamped, live):
            await self.connection.apply(cache.resource, stamped)
        carrier = CARRIERS.get(cache.resource.kind)
        if live is not None and carrier is not None:
            for resource, change in carrier.adjust(live, wanted):
                await self.connection.apply(resource, change)

    def _existing(self, key: Key) -> Iterator[tuple[Resource, Object]]:
        label = routes.MODEL_LABEL if key.kind == "Model" else routes.ENDPOINT_LABEL
        labels = routes.MANAGED_BY | {label: key.name}
        of_gateway = (self.gateway.http_routes, self.gateway.grpc_routes) if self.gateway else ()
        policies = (self.isolation.policies,) if self.isolation else ()
        children = (*self.children.carriers.values(), self.children.services, self.children.config_maps)
        for cache in (*children, *of_gateway, *policies):
            for child in cache.list(key.namespace, labels):
                yield cache.resource, child


def _owned_by(live: Object, uid: str) -> bool:
    return any(reference.get("uid") == uid for reference in live["metadata"].get("ownerReferences", []))
