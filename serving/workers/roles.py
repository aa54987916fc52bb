"""Whether a process serves alone, or as one of several workers behind the same ports (``workers``)."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from serving import settings
from serving.engines import cpu
from serving.errors import ServingError
from serving.http import listener
from serving.service import Worker
from serving.telemetry import metrics
from serving.workers import figures
from serving.workers.link import Handler, Link

if TYPE_CHECKING:
    from serving.http.listener import HttpListener
    from serving.http.plane import DataPlane
    from serving.models.base import Models
    from serving.workers.supervisor import Place

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Process:
    """What a role has to do with."""

    plane: DataPlane
    models: Models
    http: HttpListener
    ending: asyncio.Event
    """Set when the process is to end."""


class Role(Protocol):
    """How a process hears what to do, where it listens, and whom it tells."""

    settings: settings.Document
    """What is taken for granted of every model, below what is said of it."""
    shares_ports: bool
    shared: Path | None
    """Folder for what processes that load the same files need not each have for themselves."""

    def begin(self, process: Process) -> None:
        """Listens to whoever may end the process."""

    def bind(self) -> int:
        """Takes the HTTP port, and gives its number."""

    async def listen(self) -> None:
        """The models were tried: accepts connections."""

    async def ready(self, ports: dict[str, int]) -> None:
        """Everything answers: says so."""

    async def leaving(self) -> None:
        """The process was told to end."""

    async def failed(self, error: ServingError) -> None:
        """It cannot serve."""


def say_ready(host: str, ports: dict[str, int]) -> None:
    """The one line on standard output."""
    sys.stdout.write(orjson.dumps({"listening": host, **ports, "pid": os.getpid()}).decode() + "\n")
    sys.stdout.flush()


class Alone:
    """The only process: signals end it, and standard output is told."""

    shares_ports = False
    shared: Path | None = None

    def __init__(self, host: str, port: int) -> None:
        self.settings: settings.Document = {}
        self._host = host
        self._port = port

    def begin(self, process: Process) -> None:
        """The first signal is heard, the second one ends the process."""
        self._process = process
        loop = asyncio.get_running_loop()

        def told(number: signal.Signals) -> None:
            if process.ending.is_set():
                os._exit(128 + number)
            process.ending.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told, number)

    def bind(self) -> int:
        """Takes the port, or a free one."""
        (self._socket,) = listener.bound(self._host, self._port)
        return int(self._socket.getsockname()[1])

    async def listen(self) -> None:
        """Accepts on the port."""
        with self._socket:  # the listener has a copy, whose end is to be the end of listening
            await self._process.http.accept({0: self._socket})

    async def ready(self, ports: dict[str, int]) -> None:
        """Tells standard output."""
        say_ready(self._host, ports)

    async def leaving(self) -> None:
        """Nobody else has to know."""

    async def failed(self, error: ServingError) -> None:
        """The command line says it."""


class Member:
    """One of several workers: it hears its supervisor, and SIGTERM; when the supervisor dies, so does it."""

    shares_ports = True

    def __init__(self, place: Place, shared: Path | None) -> None:
        count = len(place.http)
        threads = max(1, cpu.limit() // count)
        if place.cpus is not None:
            os.sched_setaffinity(0, place.cpus)
            threads = min(threads, len(place.cpus))
        self.settings: settings.Document = {"threads": threads}
        self.shared = shared
        self._place = place
        self._listening = asyncio.Event()

    def begin(self, process: Process) -> None:
        """Answers the supervisor."""
        self._process = process
        handlers: dict[str, Handler] = {
            "accept": self._accept,
            "end": self._end,
            "figures": self._figures,
            "load": self._load,
            "statistics": self._statistics,
            "unload": self._unload,
        }
        self._link = Link(handlers)
        self._linked = asyncio.ensure_future(self._link.run(self._place.link))
        self._linked.add_done_callback(_end_with_supervisor)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.ending.set)
        process.plane.figures_of_all = self._figures_of_all
        process.plane.service.worker = Worker(self._place.slot, len(self._place.http))
        process.plane.service.everywhere = self._change
        process.plane.service.statistics_of_workers = self._statistics_of_workers

    def bind(self) -> int:
        """The port was taken by the supervisor."""
        return int(self._own.getsockname()[1])

    async def listen(self) -> None:
        """Unloads what the siblings have unloaded, then accepts from the socket that is this worker's own."""
        for name in await self._link.call("unloaded"):
            await self._process.models.unload(name)
        await self._process.http.accept({self._place.slot: self._own})
        self._listening.set()

    async def ready(self, ports: dict[str, int]) -> None:
        """Tells the supervisor."""
        await self._link.call("ready", is_ready=True)

    async def leaving(self) -> None:
        """Tells the supervisor, who finds somebody else for this worker's socket."""
        await self._link.call("ready", is_ready=False)

    async def failed(self, error: ServingError) -> None:
        """Tells the supervisor why."""
        await self._link.call("refused", kind=type(error).__name__, text=str(error))

    @property
    def _own(self) -> socket.socket:
        return self._place.http[self._place.slot]

    async def _change(self, verb: str, name: str) -> None:
        await self._link.call("change", verb=verb, name=name)

    async def _figures_of_all(self) -> str:
        return metrics.text(figures.families(await self._link.call("figures")))

    async def _statistics_of_workers(self, name: str, version: str) -> list[Any]:
        found: list[Any] = await self._link.call("statistics", name=name, version=version)
        return found

    # What the supervisor asks for

    async def _accept(self, slots: list[int]) -> None:
        if not self._process.ending.is_set():
            await self._process.http.accept({slot: self._place.http[slot] for slot in slots})

    async def _end(self) -> None:
        self._process.ending.set()

    async def _figures(self) -> list[Any]:
        return figures.of(self._process.plane.metrics.families())

    async def _statistics(self, name: str, version: str) -> list[Any]:
        return self._process.plane.service.statistics_here(name, version)

    async def _load(self, name: str) -> None:
        await self._listening.wait()
        await self._process.models.load(name)

    async def _unload(self, name: str) -> None:
        await self._listening.wait()
        await self._process.models.unload(name)


def _end_with_supervisor(linked: asyncio.Task[None]) -> None:
    if not linked.cancelled():
        _log.error("the supervisor of this worker has ended, so it ends too", exc_info=linked.exception())
        os._exit(1)
