"""``penstock operator``: the wiring of a cluster operator, from caches to reconciles, under a Lease."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable

import pydantic

from operators.actuators.kubernetes import observing
from operators.actuators.kubernetes.actuator import KubernetesActuator
from operators.actuators.kubernetes.build_jobs import BUILT_FOR_LABEL
from operators.actuators.kubernetes.building import Building
from operators.actuators.kubernetes.carriers import CARRIERS
from operators.actuators.kubernetes.events import Events
from operators.actuators.kubernetes.gateway import Gateway, models_behind
from operators.actuators.kubernetes.isolation import Isolation
from operators.actuators.kubernetes.progress import Progresses
from operators.actuators.kubernetes.resources import (
    CONFIG_MAPS,
    ENDPOINTS,
    GATEWAYS,
    GRPC_ROUTES,
    HTTP_ROUTES,
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
from operators.api.plan import Key
from operators.cli import client
from operators.planning import runtimes
from operators.reconcile import Reconciler, affected
from operators.runtime import health
from operators.runtime.backoff import Backoff
from operators.runtime.cache import Cache
from operators.runtime.connection import Connection
from operators.runtime.controller import Controller
from operators.runtime.credentials import InCluster, Kubeconfig, Source
from operators.runtime.errors import ClusterError, NotFound
from operators.runtime.lease import Lease
from operators.runtime.queue import Queue
from operators.runtime.resource import Object, ObjectKey, Resource, key_of, selector
from operators.runtime.throttle import Throttle
from operators.runtime.webhook import RETRY as WEBHOOK_RETRY
from operators.runtime.webhook import Receiver, Webhook, telling
from operators.store.kubernetes import KubernetesStore

log = logging.getLogger(__name__)

LEASE_NAME = "penstock-operator"
ROUTER_URL = "http://penstock-router.penstock-system"
RETRY = (0.5, 300.0)
"""First and longest wait, in seconds, of a key whose reconcile fails."""
RECONNECT = (0.2, 30.0)
"""The same for a cache that lost its API server."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything an operator is told from outside."""

    kubeconfig: str | None = None
    """None: the service account of the pod."""
    context: str | None = None
    namespace: str | None = None
    """Watch this namespace only; None: all."""
    lease_namespace: str = "penstock-system"
    router_namespace: str | None = None
    """Where the router's replicas run and report; None: the Lease's."""
    image: str = "penstock-serve:latest"
    triton_image: str = "penstock-triton:latest"
    router_url: str | None = None
    """None: that of our router; with ``gateway`` what its status says."""
    gateway: str | None = None
    """NAMESPACE/NAME of the Gateway that carries the traffic; None: our router."""
    network_policies: bool = True
    allow_namespaces: tuple[str, ...] = ()
    """Whose pods may reach model pods, beside the router's."""
    cache_url: str | None = None
    """Where pods find their node's cache of artifacts; None: there is none."""
    store: str = ""
    """Artifact store that builds publish to; empty: nothing is built."""
    builder_image: str = "penstock-builder:latest"
    builder: Builder = dataclasses.field(default_factory=Builder)
    webhook: Receiver | None = None
    """Who is told of what is decided; None: nobody."""
    health_host: str = "0.0.0.0"
    health_port: int = 8081
    workers: int = 4
    qps: float = 50
    burst: int = 100


def builder(text: str) -> Builder:
    """What ``--builder`` says.

    Raises:
        OperatorError: it is not understood.
    """
    try:
        return Builder.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        known = ", ".join(field.alias or name for name, field in Builder.model_fields.items())
        raise OperatorError(f"--builder {text}: {where}: {first['msg']}; known: {known}") from error


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Gives the exit code.

    Raises:
        OperatorError: there is no such kubeconfig.
    """
    if settings.kubeconfig:
        client.check(settings.kubeconfig)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_run(settings))
    except (ClusterError, OSError) as error:
        print(f"penstock operator: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    # Cancelled by a signal is the normal end; the Lease is released on the way out.
    with contextlib.suppress(asyncio.CancelledError):
        await _lead(settings, random.Random(secrets.randbits(64)))


async def _lead(settings: Settings, chance: random.Random) -> None:
    source: Source = Kubeconfig(settings.kubeconfig, settings.context) if settings.kubeconfig else InCluster()
    clock = time.monotonic
    identity = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        own = await stack.enter_async_context(await Connection.open(source, Throttle(10, 20, clock), chance))
        lease = Lease(own, settings.lease_namespace, LEASE_NAME, identity, clock, _now, chance)
        connection = await stack.enter_async_context(
            await Connection.open(source, Throttle(settings.qps, settings.burst, clock), chance, lease.is_held)
        )

        def cache(
            resource: Resource,
            label_selector: str = "",
            namespace: str | None = settings.namespace,
            optional: bool = False,
        ) -> Cache:
            within, backoff = namespace if resource.namespaced else None, Backoff(*RECONNECT, chance)
            return Cache(connection, resource, backoff, clock, within, label_selector, optional=optional)

        mine = f"{selector(routes.MANAGED_BY)},!{routes.REPORT_LABEL}"
        objects = {r.kind: cache(r) for r in (MODELS, ENDPOINTS, SERVING_RUNTIMES)}
        carriers = {kind: cache(c.resource, mine, optional=bool(c.install)) for kind, c in CARRIERS.items()}
        children = Children(carriers, *(cache(r, mine) for r in (SERVICES, CONFIG_MAPS, JOBS, PODS)))
        router_namespace = settings.router_namespace or settings.lease_namespace
        routers = Routers(
            cache(PODS, selector(routes.ROUTER_LABELS), router_namespace),
            cache(CONFIG_MAPS, routes.REPORT_LABEL, router_namespace),
        )
        gateway = await _gateway(settings, connection, cache, mine) if settings.gateway else None
        of_gateway = (gateway.http_routes, gateway.grpc_routes) if gateway else ()
        isolation = None
        if settings.network_policies:
            beside = (gateway.key.namespace,) if gateway else ()  # where a Gateway's proxies may run
            allowed = (*beside, *settings.allow_namespaces)
            policies_cache = cache(NETWORK_POLICIES, mine)
            isolation = Isolation(policies_cache, router_namespace, settings.lease_namespace, allowed)
        policies = (isolation.policies,) if isolation else ()
        gateways = (gateway.gateways,) if gateway else ()
        caches = [*objects.values(), *children, *routers, *policies, *of_gateway, *gateways]
        store = KubernetesStore(connection, objects)
        router_url = settings.router_url or ("" if gateway else ROUTER_URL)
        queue: Queue[Key] = Queue(Backoff(*RETRY, chance))
        progresses = Progresses(children.pods.list, queue.add)
        events = Events(connection, _now)
        building = Building(
            connection, children, progresses, settings.builder_image, settings.store, settings.builder, events
        )
        actuator = KubernetesActuator(
            connection,
            objects,
            children,
            routers,
            settings.image,
            building,
            events,
            router_url,
            gateway,
            isolation,
            settings.cache_url,
        )
        webhook = Webhook(settings.webhook, Backoff(*WEBHOOK_RETRY, chance), _now) if settings.webhook else None
        await stack.enter_async_context(telling(webhook))
        engines = runtimes.cluster(settings.image, settings.triton_image, sys.executable)
        reconciler = Reconciler(store, actuator, _now, engines, webhook.tell if webhook else None)
        controller = Controller(queue, reconciler.reconcile, settings.workers, clock)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in caches]
            changed: asyncio.Queue[Key] = asyncio.Queue()
            tasks.append(group.create_task(_spread(changed, store, queue)))
            for each in objects.values():
                each.on_change(lambda obj: changed.put_nowait(_key(obj)))
            for each in (*children, *policies):
                each.on_change(lambda child: _tell_owner(child, queue.add))
            for each in carriers.values():
                each.on_served(lambda: _look_at(objects["Model"], changed))
            _follow_routers(routers, objects["Model"], objects["Endpoint"], queue)
            for each in of_gateway:
                # The Endpoints of a Model send to where its route does.
                each.on_change(lambda child: _tell_owner(child, changed.put_nowait))
                each.on_change(lambda child: _tell_models(child, children, queue))
            if gateway:
                gateway.gateways.on_change(_when_moved(gateway, objects.values(), changed))

            async def work() -> None:
                for each in caches:
                    await each.wait_synced()
                for each in objects.values():
                    _look_at(each, changed)
                async with asyncio.TaskGroup() as working:
                    working.create_task(progresses.run())
                    working.create_task(controller.run())

            live = [health.works(controller), *(health.sees(each, clock) for each in caches)]
            ready = [health.synced(each) for each in caches]
            metrics = webhook.metrics if webhook else str
            async with health.serving(settings.health_host, settings.health_port, live, ready, metrics) as port:
                log.info("identity=%s health=http://%s:%d/healthz", identity, settings.health_host, port)
                try:
                    await lease.run(work)
                finally:
                    for task in tasks:
                        task.cancel()


async def _spread(changed: asyncio.Queue[Key], store: KubernetesStore, queue: Queue[Key]) -> None:
    """An object that changed is looked at, and so are the objects that name it."""
    while True:
        for key in await affected(await changed.get(), store):
            queue.add(key)


def _key(obj: Object) -> Key:
    return Key(obj["kind"], *key_of(obj))


async def _gateway(settings: Settings, connection: Connection, cache: Callable[..., Cache], mine: str) -> Gateway:
    """The Gateway that carries the traffic.

    Raises:
        OperatorError: this is no name of one, or the cluster knows no Gateways.
    """
    name = settings.gateway or ""
    key = ObjectKey(*name.split("/")) if name.count("/") == 1 else ObjectKey("", "")
    if not all(key):
        raise OperatorError(f"--gateway {name}: expected NAMESPACE/NAME")
    for resource in (GATEWAYS, HTTP_ROUTES, GRPC_ROUTES):
        try:
            await connection.list(resource, key.namespace if resource is GATEWAYS else settings.namespace)
        except NotFound as error:
            raise OperatorError(
                f"--gateway {name}: the cluster does not serve {resource} {resource.version}; install the standard "
                "channel of Gateway API 1.1 or newer and a controller for it, or leave --gateway out"
            ) from error
        except ClusterError as error:
            log.warning("gateway=%r error=%r", name, str(error))
    gateways = cache(GATEWAYS, namespace=key.namespace)
    return Gateway(key, gateways, cache(HTTP_ROUTES, mine), cache(GRPC_ROUTES, mine), time.monotonic)


def _look_at(cache: Cache, changed: asyncio.Queue[Key]) -> None:
    for obj in cache.list():
        changed.put_nowait(_key(obj))


def _when_moved(gateway: Gateway, caches: Iterable[Cache], changed: asyncio.Queue[Key]) -> Callable[[Object], None]:
    """Has every object looked at when the address of ``gateway`` is another one; its status changes far more often."""
    known = gateway.url()

    def look(_: Object) -> None:
        nonlocal known
        if gateway.url() != known:
            known = gateway.url()
            for cache in caches:
                _look_at(cache, changed)

    return look


def _tell_owner(child: Object, tell: Callable[[Key], None]) -> None:
    labels = child["metadata"].get("labels") or {}
    owners = (("Model", routes.MODEL_LABEL), ("Model", BUILT_FOR_LABEL), ("Endpoint", routes.ENDPOINT_LABEL))
    for kind, label in owners:
        if label in labels:
            tell(Key(kind, key_of(child).namespace, labels[label]))


def _tell_models(route: Object, children: Children, queue: Queue[Key]) -> None:
    for key in models_behind(route, children.services.get):
        queue.add(key)


def _follow_routers(routers: Routers, models: Cache, endpoints: Cache, queue: Queue[Key]) -> None:
    """Look at the objects of which a router says something new, and at all Models when a router comes or goes."""
    told: dict[ObjectKey, Object] = {}

    def reports(report: Object) -> None:
        now = routers.reports.get(*key_of(report))
        for namespace, name in routes.changed(told.pop(key_of(report), None), now):
            for kind, there in (("Model", models), ("Endpoint", endpoints)):
                if there.get(namespace, name) is not None:
                    queue.add(Key(kind, namespace, name))
        if now is not None:
            told[key_of(report)] = now

    ready: dict[ObjectKey, bool] = {}

    def pods(pod: Object) -> None:
        now = routers.pods.get(*key_of(pod))
        if ready.pop(key_of(pod), None) != (now and observing.is_ready(now)):
            for model in models.list():
                queue.add(_key(model))
        if now is not None:
            ready[key_of(pod)] = observing.is_ready(now)

    routers.reports.on_change(reports)
    routers.pods.on_change(pods)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
