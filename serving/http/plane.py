"""What all connections of a server share: its models, limits, metrics, and the sweep that keeps the time limits."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol

from serving.errors import Overloaded
from serving.http.routes import Routes
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics
from serving.telemetry.observing import Call

if TYPE_CHECKING:
    from serving.tap.tap import Tap

_OTHER_FILES = 64
"""Open files that are no connections: models being loaded, other ports, the event loop's own."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much and how long a client may use a connection."""

    max_request_bytes: int = 64 * 2**20
    max_held_bytes: int = 4 * 64 * 2**20
    """Bodies of all unanswered requests together."""
    max_target_bytes: int = 8 * 1024
    max_headers: int = 128
    max_overhead_bytes: int = 64 * 1024
    """Everything of a request that is not its body: first line, headers, sizes of chunks, trailers. Chunks may add
    ``CHUNK_BYTES`` each."""
    max_chunks: int = 65_536
    max_connections: int = 10_000
    """Fewer where the process may not open so many files."""
    max_requests: int = 1024
    """Requests of all models that wait or are computed."""
    header_s: float = 10.0
    """From the first byte of a request, or from the connection, to the end of its headers."""
    body_grace_s: float = 10.0
    body_bytes_per_s: int = 16 * 1024
    """After the grace, a body must have come at this rate on average."""
    idle_s: float = 620.0
    """Keep-alive; longer than the idle timeout of any proxy in front (load balancers of clouds: 600 s)."""
    stalled_s: float = 30.0
    """How long a client may leave an answer unread."""


class Connection(Protocol):
    """What those who watch over connections need of one."""

    def sweep(self, now: float) -> None:
        """Closes the connection if one of its time limits has passed."""

    def is_idle(self) -> bool:
        """Whether nothing is being received, computed or written here."""

    def idle_since(self) -> float:
        """When the last answer went out."""

    def shutdown(self) -> None:
        """Closes the connection if it is idle."""

    def abort(self) -> None:
        """Closes the connection at once."""

    def in_work(self) -> tuple[Call, float] | None:
        """The inference that it has in work, and when that was received."""


class DataPlane:
    """Shared by the connections of one HTTP server."""

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        limits: Limits,
        identity: dict[str, str],
        admission: Admission,
        tap: Tap | None = None,
    ) -> None:
        self.service = service
        self.metrics = metrics
        self.limits = limits
        self.routes = Routes()
        self.tap = tap
        """Takes copies of requests for other revisions; None where nobody said where they would go."""
        self.connections: set[Connection] = set()
        self._peers = Counter[str]()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_connections = max(1, min(limits.max_connections, files - _OTHER_FILES))
        self.admission = admission
        service.in_work.append(lambda: [of for connection in self.connections if (of := connection.in_work())])
        self.figures_of_all: Callable[[], Awaitable[str]] | None = None
        """The metrics of all workers, as text, where there are several."""
        self._identity = "".join(f"{name}: {value}\r\n" for name, value in identity.items()).encode()
        self.common_headers = b""
        self.refresh_date()

    def joined(self, connection: Connection, peer: str) -> Overloaded | None:
        """Takes on a connection; why it gets no answers, where there are too many of them.

        One address may have three quarters of them, so that the others find room whatever it does; to a router that
        brings everybody's requests it is no limit to speak of.
        """
        self.connections.add(connection)
        self._peers[peer] += 1
        if len(self.connections) > self._max_connections:
            return Overloaded(f"the server has {self._max_connections} connections, its limit; try again later")
        most = max(1, self._max_connections * 3 // 4)
        if self._peers[peer] > most:
            return Overloaded(f"your address has {most} connections, the limit for one; close some of them")
        return None

    def left(self, connection: Connection, peer: str) -> None:
        """Forgets a connection."""
        self.connections.discard(connection)
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    def refresh_date(self) -> None:
        """Renders the headers that every answer carries: the date, and which revision and variant this is."""
        self.common_headers = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode() + self._identity

    def sweep(self, now: float) -> None:
        """Applies the time limits to every connection; called once a second."""
        for connection in list(self.connections):
            connection.sweep(now)
