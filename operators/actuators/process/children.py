"""One serving process, kept running: ports, readiness, restarts with backoff, last words.

The whole wish stands in the record beside the process, so whoever comes after a crash goes on supervising it
without being told anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from operators.api.plan import Key
from operators.router import daemon
from operators.router.daemon import Daemon
from operators.router.table import Server
from serving.contract import DRAIN_TIMEOUT_S, Env, Exit

_PROBE_TIMEOUT_S = 2.0
_PROBE_READY_S = 0.5
_HUNG_S = 2 * _PROBE_TIMEOUT_S
"""Silence after which clients are told so instead of being sent there: more than the one probe a busy machine costs."""
_KILLED_S = 15.0
"""Silence after which a process that was ready is killed."""
_HEALTHY_S = 10.0
_MAX_BACKOFF_S = 30.0


@dataclasses.dataclass(frozen=True)
class Process:
    """What should run, but for its ports."""

    name: str
    """Path of its record and its log below their folders: NAMESPACE/MODEL/WORKLOAD-REPLICA."""
    owner: Key
    workload: str
    artifact: str
    """Digest of what it serves, empty if nothing."""
    command: tuple[str, ...]
    """``$(NAME)`` stands for a variable of the environment."""
    environment: Mapping[str, str]
    host: str
    ready_path: str
    grpc_over_http1: bool


PROCESS: pydantic.TypeAdapter[Process] = pydantic.TypeAdapter(Process)


class Child:
    """Supervises one ``Process``. ``changed`` is called whenever a fact below has changed."""

    def __init__(
        self, process: Process, folder: Path, environment: Mapping[str, str], changed: Callable[[Key], None]
    ) -> None:
        self.process = process
        self.restarts = 0
        self.message = ""
        """Why it is not ready, as far as it is known."""
        self.refused = False
        self.ready = False
        self.was_ready = False
        """It was ready on these ports: while it starts again, clients may wait for it."""
        self.hung = False
        """It was ready, lives, and says nothing: nobody should wait for it."""
        self.http_port = 0
        self.grpc_port = 0
        self._environment = environment
        self._changed = changed
        self._record = folder / "children" / f"{process.name}.json"
        self._last_words = folder / "children" / f"{process.name}.last-words"
        self._log = folder / "logs" / f"{process.name}.log"
        self._folder = folder
        self._daemon: Daemon | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def server(self) -> Server:
        """Where the router reaches it."""
        return Server(self.process.host, self.http_port, self.grpc_port, self.process.grpc_over_http1)

    async def adopt(self, running: Daemon) -> None:
        """Go on with a process that somebody else started; whether it is ready is known afterwards."""
        self._daemon = running
        self.http_port, self.grpc_port = running.notes["http_port"], running.notes["grpc_port"]
        self.ready = self.was_ready = await self._probe() is True
        self.supervise()

    def supervise(self) -> None:
        """Start it where it does not run, and keep it running."""
        if self._daemon is None:
            self._choose_ports()
        self._task = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """End it; SIGKILL if it does not within the drain timeout."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.ready = False
        if self._daemon is not None:
            await self._daemon.end(DRAIN_TIMEOUT_S)
        self._last_words.unlink(missing_ok=True)

    async def _supervise(self) -> None:
        failures = 0
        while not self.refused:
            if self._daemon is None:
                try:
                    self._start()
                except (OSError, ValueError) as error:
                    why = error.strerror if isinstance(error, OSError) else error
                    self._end(f"{self.process.command[0]} could not be started: {why}")
            if self._daemon is not None:
                ready_for_s, killed = await self._watch(self._daemon)
                failures = 0 if ready_for_s > _HEALTHY_S else failures
                self._end(self._why(self._daemon.exit_code, killed))
            if not self.refused:
                await asyncio.sleep(min(_MAX_BACKOFF_S, 0.5 * 2 ** (failures - 1)) if failures else 0)
            failures += 1

    async def _watch(self, running: Daemon) -> tuple[float, str]:
        """Until the process has ended; gives how long it was ready, and why it was killed if it was by us."""
        now = asyncio.get_running_loop().time
        was_ready, ready_since, ready_for_s, next_probe, silent_s = self.ready, now(), 0.0, 0.0, 0.0
        asked, killed = f"GET {self.process.ready_path}", ""
        while running.alive:
            if now() >= next_probe and not killed:
                answer = await self._probe()
                # Counted in probes: a time in which this process itself stood still is one probe's silence at most.
                silent_s = silent_s + _PROBE_TIMEOUT_S if answer is None and was_ready else 0.0
                ready, hung = answer is True, silent_s >= _HUNG_S
                if ready and not self.ready:
                    self.message, self.was_ready, was_ready, ready_since = "", True, True, now()
                if hung:
                    self.message = f"{self.process.name} does not answer {asked}"
                if silent_s >= _KILLED_S:
                    killed = f"did not answer {asked} for {_KILLED_S:.0f} s and was killed"
                    running.send(signal.SIGKILL)
                if (ready, hung) != (self.ready, self.hung):
                    self.ready, self.hung = ready, hung
                    self._changed(self.process.owner)
                ready_for_s = now() - ready_since if ready else ready_for_s
                next_probe = now() + (_PROBE_READY_S if ready else daemon.POLL_S)
            await asyncio.sleep(daemon.POLL_S)
        return ready_for_s, killed

    def _start(self) -> None:
        if not all(_is_free(self.process.host, port) for port in (self.http_port, self.grpc_port)):
            self._choose_ports()
            self._changed(self.process.owner)
        own = {
            **self.process.environment,
            Env.HOST: self.process.host,
            Env.HTTP_PORT: str(self.http_port),
            Env.GRPC_PORT: str(self.grpc_port),
            Env.TERMINATION_LOG: str(self._last_words),
        }
        environment = {**self._environment, **own}
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._last_words.unlink(missing_ok=True)
        self._daemon = daemon.start(
            [expand(part, environment) for part in self.process.command],
            environment=environment,
            folder=Path.cwd(),
            log=self._log,
            record=self._record,
            notes={
                "process": PROCESS.dump_python(self.process, mode="json"),
                "http_port": self.http_port,
                "grpc_port": self.grpc_port,
            },
        )

    def _end(self, message: str) -> None:
        if self._daemon is not None:
            self.refused = self._daemon.exit_code == Exit.REFUSED
            self._daemon.forget()
        self._daemon = None
        self.ready = self.hung = False
        self.message = message
        self.restarts += not self.refused
        self._changed(self.process.owner)

    def _why(self, exit_code: int | None, killed: str) -> str:
        if not killed and exit_code is not None and exit_code < 0:
            names = {number.value: f" ({number.name})" for number in signal.Signals}
            killed = f"was killed by signal {-exit_code}{names.get(-exit_code, '')}"
        if killed:
            words = f"{self.process.name} {killed}"
            # Whoever reads the log must not think that it goes on; that it cannot be written is no reason to stop.
            with contextlib.suppress(OSError), self._log.open("a") as log:
                log.write(f"{words}\n")
            return words
        said = self._said()
        if exit_code == Exit.REFUSED and said:
            return said
        how = f"{self.process.name} ended" + ("" if exit_code is None else f" with code {exit_code}")
        return f"{how}: {said}" if said else f"{how} and said nothing; see {self._log}"

    def _said(self) -> str:
        """The process's own last line, files of its artifact named as whoever made it knows them."""
        for file in (self._last_words, self._log):
            try:
                lines = file.read_text(errors="replace").strip().splitlines()[-1:]
            except OSError:
                continue
            if lines:
                folder = self.process.environment.get(Env.MODEL_DIR)
                return (lines[0].replace(f"{folder}/", "") if folder else lines[0])[:1024]
        return ""

    def _choose_ports(self) -> None:
        self.was_ready = False
        with socket.socket() as one, socket.socket() as other:
            one.bind((self.process.host, 0))
            other.bind((self.process.host, 0))
            self.http_port, self.grpc_port = one.getsockname()[1], other.getsockname()[1]

    async def _probe(self) -> bool | None:
        """Whether it says that it is ready; None if it says nothing at all, which a closed port does not mean."""
        request = f"GET {self.process.ready_path} HTTP/1.1\r\nhost: {self.process.host}\r\nconnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self.process.host, self.http_port)
                try:
                    writer.write(request.encode())
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    writer.close()
        except TimeoutError:
            return None
        except (OSError, ValueError):
            return False


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced as Kubernetes does: ``$$(NAME)`` stays ``$(NAME)``, and so does an unknown name."""

    def value(found: re.Match[str]) -> str:
        if found[0].startswith("$$"):
            return found[0][1:]
        return environment.get(found[1], found[0])

    return re.sub(r"\$?\$\(([A-Za-z_][A-Za-z0-9_]*)\)", value, text)


def recorded(running: Daemon) -> Process | None:
    """What a process found by its record was started as; None if it was nothing of ``Child``."""
    notes: Mapping[str, Any] = running.notes
    return PROCESS.validate_python(notes["process"]) if "process" in notes else None


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
