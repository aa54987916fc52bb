"""An operator in this process, pass by pass, on a real API server: its writes can be cut, and its clock is ours.

The world around it (kubelets, a router, whoever edits the Model) does what it is told between two passes, through
requests of its own. Nothing waits for anything: every pass reads all that it looks at from the API server anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import itertools
import json
import random
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Literal

import aiohttp
import httpx

from operators.actuators.kubernetes import drift, events
from operators.actuators.kubernetes.actuator import KubernetesActuator
from operators.actuators.kubernetes.building import Building
from operators.actuators.kubernetes.events import Events
from operators.actuators.kubernetes.isolation import Isolation
from operators.actuators.kubernetes.progress import Progresses
from operators.actuators.kubernetes.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    EVENTS,
    JOBS,
    MODELS,
    NETWORK_POLICIES,
    PODS,
    SERVICES,
    SERVING_RUNTIMES,
    Children,
    Routers,
)
from operators.api import routes
from operators.api.builder import Builder
from operators.api.errors import OperatorError
from operators.api.plan import FULL_WEIGHT, Arm, Counts, Key, RouteObserved
from operators.planning import runtimes
from operators.reconcile import Reconciler
from operators.runtime import errors
from operators.runtime.backoff import Backoff
from operators.runtime.cache import Cache
from operators.runtime.connection import Connection
from operators.runtime.credentials import Kubeconfig
from operators.runtime.resource import Object, Resource, selector
from operators.runtime.throttle import Throttle
from operators.store.kubernetes import KubernetesStore
from tests.rig.control_plane import ControlPlane

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
RATE = 2000
"""Requests a second."""
NAME = "digits"
KEPT = (MODELS, DEPLOYMENTS, SERVICES, CONFIG_MAPS, NETWORK_POLICIES, EVENTS)
"""What an operator leaves behind."""

MOST_PASSES = 20
"""Of an operator in a world in which nothing happens."""

Moment = Literal["before", "after", "unanswered"]
"""When it is killed: before a write reaches the API server, after its answer, or after a write whose answer is lost."""


class Killed(BaseException):
    """The operator is no more; nothing that it would do about an error is done."""


@dataclasses.dataclass
class Journal:
    """What operators tried to write and what came of it, and where one of them dies."""

    tried: list[str] = dataclasses.field(default_factory=list)
    """By method and path, in order."""
    passes: list[int] = dataclasses.field(default_factory=list)
    """The pass that each of them belongs to."""
    passed: int = 0
    created: list[str] = dataclasses.field(default_factory=list)
    deleted: list[str] = dataclasses.field(default_factory=list)
    at: int | None = None
    """The number of the write at which it happens, from 0; None: nothing does."""
    moment: Moment = "before"
    fired: bool = False


class CutConnection(Connection):
    """The operator's own connection, with a ``journal`` between it and its transport."""

    journal: Journal

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        if method == "GET":
            return await super()._send(method, path, query, body, content_type, timeout)
        journal = self.journal
        is_cut = not journal.fired and journal.at == len(journal.tried)
        journal.tried.append(f"{method} {path}")
        journal.passes.append(journal.passed)
        if is_cut:
            journal.fired = True
            if journal.moment == "before":
                raise Killed
        response = await super()._send(method, path, query, body, content_type, timeout)
        if response.status == 201:
            journal.created.append(path)
        elif method == "DELETE":
            journal.deleted.append(path)
        if is_cut:
            response.close()
            if journal.moment == "after":
                raise Killed
            raise errors.Unreachable(f"{method} {path}: the answer is lost")
        return response


class ReadCache(Cache):
    """Reads everything when it is told to, and follows nothing."""

    async def read(self) -> None:
        await self._list()


class Operator:
    """One instance, with caches of its own, for one namespace."""

    def __init__(self, connection: CutConnection, namespace: str, world: World) -> None:
        chance = random.Random(0)

        def cache(resource: Resource, label_selector: str = "") -> ReadCache:
            within = namespace if resource.namespaced else None
            return ReadCache(connection, resource, Backoff(0.1, 1, chance), time.monotonic, within, label_selector)

        mine = f"{selector(routes.MANAGED_BY)},!{routes.REPORT_LABEL}"
        kinds = {r.kind: cache(r) for r in (MODELS, ENDPOINTS, SERVING_RUNTIMES)}
        made = [cache(r, mine) for r in (DEPLOYMENTS, SERVICES, CONFIG_MAPS)]
        routers = [cache(PODS, selector(routes.ROUTER_LABELS)), cache(CONFIG_MAPS, routes.REPORT_LABEL)]
        policies = cache(NETWORK_POLICIES, mine)
        # No kubelet, no builder: there are neither Jobs nor pods of its own to read.
        children = Children({DEPLOYMENTS.kind: made[0]}, made[1], made[2], cache(JOBS, mine), cache(PODS, mine))
        self.caches = [kinds["Model"], *made, *routers, policies]
        objects: dict[str, Cache] = dict(kinds)
        events = Events(connection, lambda: world.now)
        progresses = Progresses(children.pods.list, lambda key: None)
        building = Building(connection, children, progresses, "penstock-builder:test", "", Builder(), events)
        actuator = KubernetesActuator(
            connection,
            objects,
            children,
            Routers(routers[0], routers[1]),
            "penstock-serve:test",
            building,
            events,
            "http://router",
            isolation=Isolation(policies, "penstock-system", "penstock-system"),
        )
        store = KubernetesStore(connection, objects)
        builtin = runtimes.builtin("penstock-serve:test", sys.executable)
        self.reconciler = Reconciler(store, actuator, lambda: world.now, builtin)
        self.key = Key("Model", namespace, NAME)

    async def reconcile(self) -> None:
        """One pass over what is there now."""
        await asyncio.gather(*(cache.read() for cache in self.caches))
        await self.reconciler.reconcile(self.key)


class World:
    """Kubelets, one router and a user, in one namespace."""

    def __init__(self, api: httpx.AsyncClient, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.now = START
        self.failing = 0.0
        """Share of the requests that the newer of two revisions fails."""
        self.measured = True
        self.counted: dict[str, Counts] = {}
        self.routed: tuple[Arm, ...] = ()
        self.asked_before: tuple[Arm, ...] = ()
        self.pod: Object = {}
        self.status: Object = {}
        """Of the Model, when time last went by."""

    async def begin(self) -> None:
        """A namespace with a router's pod in it."""
        await self._post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        within = f"/api/v1/namespaces/{self.namespace}"
        await self._post(f"{within}/serviceaccounts", {"metadata": {"name": "default"}}, may_exist=True)
        container = {"name": "router", "image": "none"}
        metadata = {"name": "router", "labels": routes.ROUTER_LABELS}
        self.pod = await self._post(f"{within}/pods", {"metadata": metadata, "spec": {"containers": [container]}})

    async def apply(self, model: Object) -> None:
        """Whatever the Model was before."""
        path, query = MODELS.path(self.namespace, NAME), {"fieldManager": "user", "force": "true"}
        await self._patch(path, model, "application/apply-patch+yaml", query)

    async def annotate(self, annotations: Mapping[str, str | None]) -> None:
        change = {"metadata": {"annotations": annotations}}
        await self._patch(MODELS.path(self.namespace, NAME), change, "application/merge-patch+json")

    async def model(self) -> Object:
        return await self._get(MODELS.path(self.namespace, NAME))

    async def items(self, resource: Resource) -> list[Object]:
        found: list[Object] = (await self._get(resource.path(self.namespace)))["items"]
        return found

    async def deployments(self) -> dict[str, Object]:
        return {one["metadata"]["name"]: one for one in await self.items(DEPLOYMENTS)}

    async def asked(self) -> tuple[Arm, ...]:
        """Arms of the route as the operator wrote it."""
        for config_map in await self.items(CONFIG_MAPS):
            if config_map["metadata"]["name"] == f"{NAME}{routes.MODEL_SUFFIX}":
                route = routes.route(config_map)
                return tuple(arm for arm in getattr(route, "arms", ()))
        return ()

    async def obey(self, seconds: float = 10) -> None:
        """Every replica is ready, the router does what it was asked and counts ``seconds`` of requests."""
        for name, deployment in (await self.deployments()).items():
            wanted = deployment["spec"]["replicas"]
            if deployment["status"].get("readyReplicas", 0) != wanted:
                await self.ready(name, wanted)
        self.routed = await self.asked()
        await self.flow(seconds)

    async def ready(self, deployment: str, number: int) -> None:
        """As a kubelet would have it."""
        status = {"replicas": number, "readyReplicas": number, "availableReplicas": number}
        path = f"{DEPLOYMENTS.path(self.namespace, deployment)}/status"
        await self._patch(path, {"status": status}, "application/merge-patch+json")

    async def flow(self, seconds: float) -> None:
        """Time goes by, requests are answered by whom they are routed to, and the router reports."""
        self.now += datetime.timedelta(seconds=seconds)
        self.status = (await self.model()).get("status", {})
        newest = self.status.get("rollout", {}).get("revision")
        for arm in self.routed:
            before = self.counted.get(arm.workload, Counts())
            answered = round(seconds * RATE * arm.weight / FULL_WEIGHT)
            failed = round(answered * self.failing) if arm.revision == newest else 0
            self.counted[arm.workload] = Counts(before.answered + answered, before.failed + failed)
        counts = {"1@1": dict(self.counted)} if self.measured else {}
        in_flight = {arm.workload: 1 for arm in self.routed}
        seen = RouteObserved(self.routed, in_flight, counts=counts, read_s={"1@1": self.now.timestamp()})
        uid = self.pod["metadata"]["uid"]
        report = routes.report(self.namespace, "router", uid, {(self.namespace, NAME): seen})
        path, query = CONFIG_MAPS.path(self.namespace, "router"), {"fieldManager": "router", "force": "true"}
        await self._patch(path, report, "application/apply-patch+yaml", query)

    async def left(self) -> Object:
        """Everything that the operator or a user made, without what the API server makes up."""
        found: Object = {}
        made = next(iter(await self.items(MODELS)))["metadata"]["creationTimestamp"]
        for resource in KEPT:
            for one in await self.items(resource):
                if routes.REPORT_LABEL in one["metadata"].get("labels", {}):
                    continue
                text = json.dumps([one["metadata"]["name"], _kept(one)]).replace(self.namespace, "NAMESPACE")
                # By when the Model was made, its Events name the first beginning.
                name, kept = json.loads(text.replace(events.named(made), "MADE"))
                found[f"{resource.kind}/{name}"] = kept
        return found

    async def _get(self, path: str) -> Object:
        return _answer(await self.api.get(path))

    async def _post(self, path: str, body: Object, *, may_exist: bool = False) -> Object:
        answer = await self.api.post(path, json=body)
        return {} if may_exist and answer.status_code == 409 else _answer(answer)

    async def _patch(self, path: str, body: Object, how: str, query: Mapping[str, str] | None = None) -> Object:
        headers = {"Content-Type": how}
        return _answer(await self.api.patch(path, content=json.dumps(body), headers=headers, params=query))


def _answer(answer: httpx.Response) -> Object:
    assert answer.is_success, answer.text
    found: Object = answer.json()
    return found


_MADE_UP = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "ownerReferences")


def _kept(obj: Object) -> Object:
    metadata = {k: v for k, v in obj["metadata"].items() if k not in _MADE_UP}
    # A digest of the object with the identity of its owner.
    metadata.get("annotations", {}).pop(drift.APPLIED, None)
    spec = {k: v for k, v in obj.get("spec", {}).items() if k not in ("clusterIP", "clusterIPs")}
    kept = {**obj, "metadata": metadata, "spec": spec, "regarding": ""}
    for condition in kept.get("status", {}).get("conditions", ()):
        del condition["lastTransitionTime"]
    return kept


_numbers = itertools.count()


@dataclasses.dataclass
class Stage:
    """One control plane, on which one rollout after another is played."""

    api: httpx.AsyncClient
    connection: CutConnection

    async def world(self) -> World:
        """A new one, in a namespace that nobody else knows."""
        made = World(self.api, f"world-{next(_numbers)}")
        await made.begin()
        return made

    def operator(self, world: World, journal: Journal) -> Operator:
        """A new one, that knows nothing; ``journal`` writes down what it writes."""
        self.connection.journal = journal
        return Operator(self.connection, world.namespace, world)


@contextlib.asynccontextmanager
async def opened(plane: ControlPlane) -> AsyncIterator[Stage]:
    """On ``plane``, where no controller says which replicas are ready."""
    context = ssl.create_default_context(cafile=plane.ca_file)
    headers = {"Authorization": f"Bearer {plane.tokens['admin']}"}
    throttle = Throttle(10_000, 10_000, time.monotonic)
    source = Kubeconfig(str(plane.kubeconfig()))
    async with (
        httpx.AsyncClient(base_url=plane.url, verify=context, headers=headers, timeout=30) as api,
        await CutConnection.open(source, throttle, random.Random(0)) as connection,
    ):
        yield Stage(api, connection)


async def play(stage: Stage, journal: Journal, world: World, until: Sequence[str], most: int) -> None:
    """Passes of an operator until one writes nothing, then the world obeys, and so on until a rollout has one of the
    states ``until`` and nothing is left to write. An operator that dies is followed by another at the same moment.
    """
    for _ in range(most):
        wrote = await settle(stage, journal, world)
        if not wrote and world.status.get("rollout", {}).get("state", "") in until:
            return
        await world.obey()
    raise AssertionError(f"it never ends: {world.status}")


async def settle(
    stage: Stage, journal: Journal, world: World, passed: Callable[[], Awaitable[None]] | None = None
) -> bool:
    """Passes until one writes nothing; gives whether any did. After each ``passed`` is called."""
    operator, began = stage.operator(world, journal), len(journal.tried)
    for _ in range(MOST_PASSES):
        tried, fired = len(journal.tried), journal.fired
        journal.passed += 1
        try:
            await operator.reconcile()
        except (Killed, OperatorError):
            assert journal.fired > fired
        if passed is not None:
            await passed()
        if journal.fired > fired:
            operator = stage.operator(world, journal)
        elif len(journal.tried) == tried:
            return tried > began
    raise AssertionError(f"it writes for ever: {journal.tried[began:]}")
