"""``penstock router``: one replica of the router in a cluster, from caches to HAProxy and a report.

The API server is asked for nothing that a request waits for. While it is away HAProxy goes on as it was last
programmed, and a container that starts again in the same pod begins with the table on its disk; only the pod's first
readiness waits for the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from operators.actuators.kubernetes import drift
from operators.actuators.kubernetes.resources import CONFIG_MAPS, ENDPOINT_SLICES
from operators.api import counted, routes
from operators.api.errors import OperatorError
from operators.api.plan import RouteObserved
from operators.cli import client
from operators.router import certificate, discovery
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from operators.router.table import Server
from operators.runtime import health
from operators.runtime.backoff import Backoff
from operators.runtime.cache import Cache
from operators.runtime.connection import Connection
from operators.runtime.credentials import InCluster, Kubeconfig, Source
from operators.runtime.errors import ClusterError
from operators.runtime.resource import Object, Resource, selector
from operators.runtime.throttle import Throttle
from serving.contract import DRAIN_TIMEOUT_S

log = logging.getLogger(__name__)

RECONNECT = (0.2, 5.0)
"""First and longest wait, in seconds, of a cache that lost its API server: routes are waited for."""
RETRY = (0.2, 5.0)
"""The same for a table or report that could not be brought where it should be."""
CERTIFICATE_POLL_S = 5.0
LAST_S = 5.0
"""How long a router that ends tries to tell what it counted last."""
SILENT_S = 60
"""Without an answer of HAProxy for so long, the container is started again."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a router is told from outside."""

    pod: str
    pod_namespace: str
    pod_uid: str
    pod_ip: str = ""
    """Where model servers reach this replica; empty: where it listens."""
    kubeconfig: str | None = None
    """None: the service account of the pod."""
    context: str | None = None
    namespace: str | None = None
    """Route for this namespace only; None: all."""
    host: str = "0.0.0.0"
    http_port: int = 8080
    grpc_port: int = 9000
    tls_dir: Path | None = None
    """Where tls.crt and tls.key are, for https; None: no https."""
    https_port: int = 8443
    metrics_port: int = 8083
    folder: Path = Path("/run/penstock")
    catalog_port: int = 8082
    """On loopback; answers for what has no server. 0: nobody does."""
    health_host: str = "0.0.0.0"
    health_port: int = 8081


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, and then until HAProxy has answered what was under way. Gives the exit code.

    Raises:
        OperatorError: there is no such kubeconfig, or no HAProxy.
    """
    if settings.kubeconfig:
        client.check(settings.kubeconfig)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_run(settings, os.environ))
    except (OperatorError, OSError) as error:
        print(f"penstock router: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: Settings, environment: Mapping[str, str]) -> None:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    # Cancelled by a signal is the normal end; a second one, while requests are waited for, ends it at once.
    with contextlib.suppress(asyncio.CancelledError):
        await _route(settings, environment, random.Random(secrets.randbits(64)))


async def _route(settings: Settings, environment: Mapping[str, str], chance: random.Random) -> None:
    source: Source = Kubeconfig(settings.kubeconfig, settings.context) if settings.kubeconfig else InCluster()
    clock = time.monotonic
    async with await Connection.open(source, Throttle(10, 20, clock), chance) as connection:

        def cache(resource: Resource, label_selector: str, namespace: str | None = settings.namespace) -> Cache:
            return Cache(connection, resource, Backoff(*RECONNECT, chance), clock, namespace, label_selector)

        config_maps = cache(CONFIG_MAPS, f"{selector(routes.MANAGED_BY)},{routes.ROUTE_LABEL}")
        slices = cache(ENDPOINT_SLICES, f"{selector(discovery.SLICES)},{routes.WORKLOAD_LABEL}")
        reports = cache(CONFIG_MAPS, routes.REPORT_LABEL, settings.pod_namespace)
        moved, told = asyncio.Event(), asyncio.Event()
        https_port = settings.https_port if settings.tls_dir else 0
        listen = Listen(
            settings.host,
            settings.http_port,
            settings.grpc_port,
            https_port,
            metrics_port=settings.metrics_port,
            reached_at=settings.pod_ip,
        )
        router = Router(settings.folder, listen, haproxy(), environment, told.set)
        replica = Replica(settings, connection, router, config_maps, slices, reports)
        for each in (config_maps, slices):
            each.on_change(lambda _: moved.set())
        reports.on_change(lambda _: told.set())
        ready = [*(health.synced(each) for each in (config_maps, slices, reports)), replica.is_ready]
        async with health.serving(settings.health_host, settings.health_port, [replica.is_alive], ready) as port:
            log.info("pod=%s health=http://%s:%d/healthz", settings.pod, settings.health_host, port)
            if settings.tls_dir:
                await replica.present(settings.tls_dir)
            await router.start()
            try:
                async with asyncio.TaskGroup() as group:
                    for each in (config_maps, slices, reports):
                        group.create_task(each.run())
                    group.create_task(replica.program(moved, told, Backoff(*RETRY, chance)))
                    group.create_task(replica.report(told, Backoff(*RETRY, chance)))
                    if settings.tls_dir:
                        group.create_task(replica.follow(settings.tls_dir))
            finally:
                replica.ending = True
                log.info("pod=%s ending=true", settings.pod)
                await router.stop(DRAIN_TIMEOUT_S)
                await replica.tell_last()


class Replica:
    """What this replica of the router does with what its caches hold."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        router: Router,
        config_maps: Cache,
        slices: Cache,
        reports: Cache,
    ) -> None:
        self.ending = False
        self._settings = settings
        self._connection = connection
        self._router = router
        self._config_maps = config_maps
        self._slices = slices
        self._reports = reports
        self._began = asyncio.get_running_loop().time()
        self._programmed = False
        self._reported = False
        self._counted: dict[tuple[str, str], RouteObserved] = {}
        self._counted_at = -math.inf
        self._has_certificate = settings.tls_dir is None
        self._said_certificate = ""

    async def program(self, moved: asyncio.Event, told: asyncio.Event, backoff: Backoff) -> None:
        """Keep HAProxy's table as the cluster says."""
        port = self._settings.catalog_port
        catalog = Server("127.0.0.1", port, port, True) if port else None
        await self._config_maps.wait_synced()
        await self._slices.wait_synced()
        said: list[str] = []
        failures = 0
        while True:
            moved.clear()
            try:
                table, problems = discovery.table(
                    self._router.table, self._config_maps.list(), self._slices.list(), catalog
                )
                for problem in problems:
                    if problem not in said:
                        log.warning("route error=%r", problem)
                said = problems
                await self._router.apply(table)
                self._programmed, failures = True, 0
                told.set()
                await moved.wait()
                continue
            except (OperatorError, OSError) as error:
                log.warning("table error=%r", str(error))
            except Exception:
                # What nobody thought of must not take the data plane down.
                log.exception("pod=%s", self._settings.pod)
            failures += 1
            await asyncio.sleep(backoff.delay_s(failures))

    async def present(self, folder: Path) -> None:
        """Serve https with the certificate in ``folder``; with the one before where that is none."""
        try:
            pem = certificate.read(folder)
            await self._router.present(pem)
            if self._said_certificate:
                log.info("certificate folder=%s used=true", folder)
            self._has_certificate, self._said_certificate = True, ""
        except (OperatorError, OSError) as error:
            self._has_certificate = self._has_certificate or self._router.present_former()
            if str(error) != self._said_certificate:
                log.error("certificate error=%r former_goes_on=%s", str(error), self._has_certificate)
                self._said_certificate = str(error)

    async def follow(self, folder: Path) -> None:
        """Notice that the certificate is another one."""
        while True:
            await asyncio.sleep(CERTIFICATE_POLL_S)
            await self.present(folder)

    async def report(self, told: asyncio.Event, backoff: Backoff) -> None:
        """Tell the operator what HAProxy does, whenever that is something else than was told before."""
        await self._reports.wait_synced()
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(counted.REPORTED_S if self._counted else None):
                    await told.wait()
            told.clear()
            if not self._programmed or not self._router.applied:
                continue
            report = drift.stamped(self._report())
            live = self._reports.get(self._settings.pod_namespace, self._settings.pod)
            try:
                if live is None or drift.differs(report, live):
                    await self._connection.apply(CONFIG_MAPS, report)
                self._reported = True
                failures = 0
            except ClusterError as error:
                failures += 1
                log.warning("report error=%r", str(error))
                told.set()
                await asyncio.sleep(backoff.delay_s(failures))

    async def tell_last(self) -> None:
        """Tell what clients reported since the last report, when nothing more comes."""
        table = self._router.table
        if not any(split.outcomes for split in table.endpoints.values()) and not any(
            places.feedback for places in table.models.values()
        ):
            return
        self._counted_at = -math.inf
        try:
            async with asyncio.timeout(LAST_S):
                await self._connection.apply(CONFIG_MAPS, drift.stamped(self._report()))
        except (ClusterError, TimeoutError) as error:
            log.warning("last report error=%r", str(error))

    def _report(self) -> Object:
        seen = {}
        table = self._router.table
        told = [key for key, split in table.endpoints.items() if split.outcomes is not None or split.shadows]
        for key in (*table.models, *told):
            namespace, _, name = key.partition("/")
            observed = self._router.observe(namespace, name)
            if observed is not None:
                seen[namespace, name] = observed
        seen |= self._with_counts({model: of for model, of in seen.items() if of.counts or of.outcomes})
        pod = self._settings
        return routes.report(pod.pod_namespace, pod.pod, pod.pod_uid, seen)

    def _with_counts(self, seen: Mapping[tuple[str, str], RouteObserved]) -> Mapping[tuple[str, str], RouteObserved]:
        """``seen`` with counts that stay the same for a while, or every report would be a reason for the next.

        They change with the arms, whatever the time: what was counted under other weights must be told apart.
        """
        now = asyncio.get_running_loop().time()
        due = now - self._counted_at >= counted.REPORTED_S
        if due:
            self._counted_at = now
        before, self._counted = self._counted, {}
        for model, of in seen.items():
            then = before.get(model)
            same = then is not None and not due and then.arms == of.arms and then.counts.keys() == of.counts.keys()
            if then is not None and same:
                of = dataclasses.replace(of, counts=then.counts, read_s=then.read_s, outcomes=then.outcomes)
            self._counted[model] = of
        return self._counted

    def is_alive(self) -> str | None:
        """Complains when HAProxy has not answered for long, whatever the API server does."""
        silent_s = asyncio.get_running_loop().time() - max(self._router.contact, self._began)
        return None if silent_s <= SILENT_S or self.ending else f"HAProxy: no answer for {silent_s:.0f} s"

    def is_ready(self) -> str | None:
        """Complains until HAProxy has the cluster's table and that is reported, and while it ends."""
        if self.ending:
            return "router: it is ending"
        if not self._programmed:
            return "router: HAProxy has not got the cluster's table yet"
        if not self._has_certificate:
            return f"router: no https: {self._said_certificate}"
        return None if self._reported else "router: what HAProxy does is not reported yet"
