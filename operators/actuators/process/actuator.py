"""``ProcessActuator``: the latest plan of every key, made true by child processes and the router.

Every change, whoever made it, ends in the same pass over all plans: fetch what is missing, start what should run,
put into the data plane what is ready, take out of it what should end, and end it once no worker of the router uses
it. The pass may run at any time and any number of times.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from operators.actuators.process import building, fetching
from operators.actuators.process.children import Child, Process, recorded
from operators.api.errors import OperatorError
from operators.api.plan import (
    Build,
    Fetch,
    FetchState,
    Key,
    Observation,
    Plan,
    Route,
    Split,
    Workload,
    WorkloadObserved,
)
from operators.router import daemon
from operators.router.agent import Router
from operators.router.configuration import Listen
from operators.router.table import Server, Table, successor
from serving.contract import DRAIN_TIMEOUT_S, READY_PATH, Env

log = logging.getLogger(__name__)

_CATALOG = Key("Catalog", "", "catalog")
_LEAVING_POLL_S = 0.1
_END_TIMEOUT_S = 2.0


class ProcessActuator:
    """Implements ``actuators.base.Actuator`` for one data directory.

    ``notify`` is called with a key whenever something about it may have changed; it says "look again", no more.
    """

    def __init__(
        self,
        folder: Path,
        listen: Listen,
        *,
        python: str,
        haproxy: Path,
        environment: Mapping[str, str],
        notify: Callable[[Key], None],
    ) -> None:
        self._folder = folder
        self._listen = listen
        self._python = python
        # `python` and `penstock` of a runtime's command are the ones this process runs from.
        bin_folder = str(Path(python).parent)
        self._environment = {**environment, "PATH": f"{bin_folder}:{environment.get('PATH', '')}"}
        self._notify = notify
        self._plans: dict[Key, Plan] = {}
        self._planned: set[Key] = set()
        self._pending: set[Key] | None = None
        self._children: dict[str, Child] = {}
        self._leaving: dict[str, asyncio.Task[None] | None] = {}
        """Children that are to end; with a task once the router has been told."""
        self._told: dict[Key, object] = {}
        self._fetching = fetching.Fetching(folder, python, self._environment, self._fetched)
        self._building = building.Building(folder, python, self._environment, self._built)
        self._router = Router(folder / "router", listen, haproxy, self._environment, self._router_changed)
        self._lock = asyncio.Lock()
        # This is no part of what a process is, so that none starts anew for it.
        self._serving = {**self._environment, Env.ROUTED: "1"}
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what still runs of an earlier process, then start the catalog and the router.

        Raises ``OperatorError`` if the router does not start.
        """
        adopting = []
        for record in sorted((self._folder / "children").rglob("*.json")):
            running = daemon.adopt(record)
            process = recorded(running) if running else None
            if running is not None and process is None:
                await running.end(_END_TIMEOUT_S)
            elif running is not None and process is not None:
                child = Child(process, self._folder, self._serving, self._changed)
                self._children[process.name] = child
                adopting.append(child.adopt(running))
        await asyncio.gather(*adopting)
        self._start_missing([self._catalog()])
        self._router.table = self._table()
        await self._router.start()
        self._loop = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the router, then all children and fetches."""
        if self._loop is not None:
            self._loop.cancel()
        leaving = [task for task in self._leaving.values() if task is not None]
        await asyncio.gather(
            *([self._loop] if self._loop else []), self._fetching.stop(), self._building.stop(), return_exceptions=True
        )
        await self._router.stop(_END_TIMEOUT_S)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in self._children.values()))

    def settle(self, keys: Iterable[Key]) -> None:
        """Say which objects there are: once each has been acted on, what no plan names is removed.

        Until then nothing that an earlier process left is touched, unless its own key's plan says so.
        """
        self._pending = set(keys) - self._planned
        self._wake.set()

    async def observe(self, key: Key) -> Observation:
        """What exists for ``key`` now."""
        plan = self._plans.get(key, Plan())
        wished = {*plan.fetches, *(workload.artifact for workload in plan.workloads)}
        wanted = {workload.name: workload for workload in plan.workloads}
        children: dict[str, list[Child]] = {}
        for child in self._children.values():
            if child.process.owner == key:
                children.setdefault(child.process.workload, []).append(child)
        prefix = "" if key.namespace == "default" else f"/{key.namespace}/{key.name}"
        return Observation(
            fetches={fetch: self._fetching.observed(fetch) for fetch in wished},
            builds={build: self._building.observed(build) for build in plan.builds},
            workloads={
                name: _seen(wanted.get(name), children.get(name, []), self._fetching)
                for name in sorted(wanted.keys() | children.keys())
            },
            route=self._router.observe(key.namespace, key.name),
            url=f"http://{self._listen.own_host}:{self._listen.http_port}{prefix}/v2/models/{key.name}",
        )

    async def act(self, key: Key, plan: Plan) -> None:
        """Make the world as ``plan`` says for ``key``; see ``actuators.base.Actuator``."""
        if plan.route is not None:
            successor(Table(), [plan.route], {}, None)
        self._planned.add(key)
        if self._pending is not None:
            self._pending.discard(key)
        if plan.fetches or plan.workloads or plan.route:
            self._plans[key] = plan
        else:
            self._plans.pop(key, None)
        await self._converge()

    def logs(self, namespace: str, model: str) -> tuple[Path, ...]:
        """Log files of a Model's processes, the one written last at the end."""
        found = (self._folder / "logs" / namespace / model).glob("*.log")
        return tuple(sorted(found, key=lambda path: path.stat().st_mtime))

    @property
    def _is_settled(self) -> bool:
        return self._pending is not None and not self._pending

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._converge()
            except (OperatorError, OSError) as error:
                log.warning("actuator folder=%s error=%r", self._folder, str(error))
            except Exception:
                # Nobody else keeps the children in line with the plans, so a surprise must not end this.
                log.exception("actuator folder=%s", self._folder)

    async def _converge(self) -> None:
        async with self._lock:
            self._fetching.want(
                fetch
                for plan in self._plans.values()
                for fetch in (*plan.fetches, *(workload.artifact for workload in plan.workloads))
            )
            self._building.want(build for plan in self._plans.values() for build in plan.builds)
            wanted = {process.name: process for process in (self._catalog(), *self._processes())}
            self._start_missing(wanted.values())
            for name, child in self._children.items():
                if child.process != wanted.get(name) and self._may_end(child.process.owner):
                    self._leaving.setdefault(name, None)
            if self._is_settled:
                self._fetching.keep_only(self._kept_artifacts())
            await self._router.apply(self._table())
            for name, task in self._leaving.items():
                if task is None:
                    self._leaving[name] = asyncio.create_task(self._retire(self._children[name]))

    def _start_missing(self, wanted: Iterable[Process]) -> None:
        for process in wanted:
            if process.name not in self._children:
                self._children[process.name] = Child(process, self._folder, self._serving, self._changed)
                self._children[process.name].supervise()

    def _processes(self) -> Iterator[Process]:
        for key, plan in self._plans.items():
            for workload in plan.workloads:
                local = workload.runtime.local
                ready = self._fetching.observed(workload.artifact).state is FetchState.FETCHED
                for replica in range(_replicas(workload)):
                    name = f"{workload.namespace}/{workload.model}/{workload.name}-{replica}"
                    if local is None or not (ready or name in self._children):
                        continue
                    digest = workload.artifact.digest or ""
                    yield Process(
                        name=name,
                        owner=key,
                        workload=workload.name,
                        artifact=digest,
                        command=local.command,
                        environment={
                            Env.MODEL: workload.model,
                            Env.NAMESPACE: workload.namespace,
                            Env.REVISION: workload.revision,
                            Env.VARIANT: workload.variant,
                            Env.MODEL_DIR: str(self._fetching.path(digest)),
                            **({Env.SETTINGS: workload.settings} if workload.settings else {}),
                        },
                        host="127.0.0.1",
                        ready_path=workload.runtime.ready_path,
                        grpc_over_http1=workload.runtime.grpc_over_http1,
                    )

    def _table(self) -> Table:
        routes = [self._explained(plan.route) for plan in self._plans.values() if plan.route is not None]
        before = self._router.table
        for name, places in before.models.items():
            namespace, _, model = name.partition("/")
            if not self._may_end(Key("Model", namespace, model)):
                routes.append(places.route(name))
        for split in before.endpoints.values():
            if not self._may_end(Key("Endpoint", split.namespace, split.name)):
                routes.append(split)
        servers: dict[str, list[Server]] = {}
        for ready in (True, False):
            for name, child in self._children.items():
                workload = f"{child.process.owner.namespace}/{child.process.workload}"
                # Where no replica is ready, one that is starting again on its port is waited for.
                starts = child.was_ready and not child.ready and not child.hung
                if (child.ready if ready else starts and not servers.get(workload)) and name not in self._leaving:
                    servers.setdefault(workload, []).append(child.server)
        catalog = self._children.get(_CATALOG.name)
        return successor(
            before,
            routes,
            {name: tuple(of) for name, of in servers.items()},
            catalog.server if catalog else None,
        )

    def _explained(self, route: Route | Split) -> Route | Split:
        """The route with what clients are told while none of its servers is in the data plane."""
        if isinstance(route, Split):
            return route
        arms = {arm.workload for arm in route.arms if arm.weight}
        hung = (
            child.message
            for child in self._children.values()
            if child.hung and child.process.owner.namespace == route.namespace and child.process.workload in arms
        )
        return dataclasses.replace(route, message=next(hung, route.message))

    def _may_end(self, owner: Key) -> bool:
        return owner == _CATALOG or owner in self._planned or self._is_settled

    def _kept_artifacts(self) -> set[str]:
        planned = {
            fetch.digest
            for plan in self._plans.values()
            for fetch in (*plan.fetches, *(workload.artifact for workload in plan.workloads))
        }
        return {digest for digest in planned if digest} | {child.process.artifact for child in self._children.values()}

    async def _retire(self, child: Child) -> None:
        name, process = child.process.name, child.process
        deadline = asyncio.get_running_loop().time() + DRAIN_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline and self._router.uses(
            process.owner.namespace, process.workload, child.server
        ):
            await asyncio.sleep(_LEAVING_POLL_S)
        await child.stop()
        del self._children[name]
        del self._leaving[name]
        self._changed(process.owner)

    def _catalog(self) -> Process:
        return Process(
            name=_CATALOG.name,
            owner=_CATALOG,
            workload=_CATALOG.name,
            artifact="",
            command=(self._python, "-m", "serving", "catalog", "--index", str(self._router.index)),
            environment={},
            host="127.0.0.1",
            ready_path=READY_PATH,
            grpc_over_http1=True,
        )

    def _changed(self, key: Key) -> None:
        self._wake.set()
        if key != _CATALOG:
            self._notify(key)

    def _fetched(self, fetch: Fetch) -> None:
        for key, plan in self._plans.items():
            if fetch in plan.fetches or any(workload.artifact == fetch for workload in plan.workloads):
                self._changed(key)

    def _built(self, build: Build) -> None:
        for key, plan in self._plans.items():
            if build in plan.builds:
                self._changed(key)

    def _router_changed(self) -> None:
        for key in self._planned:
            seen = self._router.observe(key.namespace, key.name)
            told = None if seen is None else (seen.arms, frozenset(seen.in_flight))
            if self._told.get(key) != told:
                self._told[key] = told
                self._notify(key)


def _replicas(workload: Workload) -> int:
    return 1 if workload.replicas is None else workload.replicas


def _seen(workload: Workload | None, children: list[Child], artifacts: fetching.Fetching) -> WorkloadObserved:
    wanted = 0 if workload is None else _replicas(workload)
    message = next((child.message for child in children if child.message and not child.ready), "")
    if workload is not None and workload.runtime.local is None:
        message = (
            f"workload {workload.name}: its runtime has no local command; "
            "add spec.local.command to the ServingRuntime, or choose a runtime that has one"
        )
    elif workload is not None and not children and wanted:
        fetched = artifacts.observed(workload.artifact)
        if fetched.state is not FetchState.FETCHED:
            message = f"workload {workload.name} waits for artifact {workload.artifact.digest}: {fetched.message}"
    return WorkloadObserved(
        wanted=wanted,
        ready=sum(child.ready for child in children),
        restarts=sum(child.restarts for child in children),
        message=message,
        refused=any(child.refused for child in children),
    )
