"""What a HAProxy worker reports, and which commands bring it from there to what should be.

Nothing is remembered about what was sent: each pass compares again, so a command that was lost or a worker that
started anew needs no case of its own.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Collection, Iterator, Mapping

from operators.api.plan import Counts
from operators.router import assignment, budget, counting, mirroring, outcomes, shadowing
from operators.router.counting import Counted
from operators.router.ejection import Tally, Which

_PXNAME, _SVNAME, _SCUR, _STATUS = 0, 1, 4, 17
_TALLY = (39, 40, 41, 42), (13, 14, 43), (15,)
"""Columns of answers below 500; of failed connections, answers that did not come, and answers from 500 on; of what was
sent again.
"""


@dataclasses.dataclass(frozen=True)
class ServerSeen:
    """One server as ``show stat`` has it."""

    sessions: int
    """Requests under way."""
    enabled: bool
    left_out: bool = False
    """Enabled, but new requests go to others."""
    tally: Tally = dataclasses.field(default_factory=Tally)


@dataclasses.dataclass(frozen=True)
class Worker:
    """Everything one worker process reports that we program."""

    maps: Mapping[str, Mapping[str, str]]
    backends: Mapping[str, Mapping[str, ServerSeen]]
    counts: Counted = dataclasses.field(default_factory=Counted)
    source: str = ""
    """Which process it is, for ever: ids of processes are used again."""
    read_s: float = 0.0
    """When ``counts`` were read, by the loop's clock."""

    def counted(self, namespace: str, name: str) -> dict[str, Counts]:
        """Counts of a Model by workload, of an Endpoint by shadow; of those of now even if they are zero."""
        if f"{namespace}/{name}" not in self.maps.get(counting.MAP, {}):
            return {}
        model = f"{namespace}:{name}"
        arms = (self.maps["arms.map"].get(f"{model}:{slot}", "") for slot in "ab")
        named = (*arms, *shadowing.counters(self.maps[shadowing.MAP], f"{namespace}/{name}"))
        found = {of.partition("/")[0]: Counts() for of in named if of}
        return found | self.counts.of(model)

    def weight(self, place: str) -> int:
        """Share of its Model's traffic that ``ns:name:a`` or ``ns:name:b`` gets, in 0.01 %."""
        namespace, name, slot = place.split(":")
        of_a = int(self.maps["routes.map"].get(f"{namespace}/{name}", "-1"))
        if of_a < 0 or place not in self.maps["arms.map"]:
            return 0
        return of_a if slot == "a" else 10_000 - of_a

    def in_flight(self, model: str) -> dict[str, int]:
        """Requests under way at ``ns:name``, by workload, of the workloads that get traffic or have some."""
        found: dict[str, int] = {}
        for place, arm in self.maps["arms.map"].items():
            if place.startswith(f"{model}:") and self.weight(place) > 0:
                found[arm.partition("/")[0]] = 0
        for backend, servers in self.backends.items():
            if backend.startswith(f"{model}:"):
                for name, server in servers.items():
                    if server.sessions or name.partition(":")[0] in found:
                        workload = name.partition(":")[0]
                        found[workload] = found.get(workload, 0) + server.sessions
        return found


def parse_map(answer: str) -> dict[str, str]:
    """Entries of ``show map``: lines ``ADDRESS KEY VALUE``."""
    entries = (line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x"))
    return {key: value for _, key, value in entries}


def parse_backends(answer: str) -> dict[str, dict[str, ServerSeen]]:
    """Backends of places and their servers from ``show stat`` of backends and servers."""
    backends: dict[str, dict[str, ServerSeen]] = {}
    for row in csv.reader(line for line in answer.splitlines() if line and not line.startswith("#")):
        if ":" not in row[_PXNAME]:
            continue
        servers = backends.setdefault(row[_PXNAME], {})
        if row[_SVNAME] != "BACKEND":
            status, tally = row[_STATUS], Tally(*(sum(int(row[n] or 0) for n in of) for of in _TALLY))
            servers[row[_SVNAME]] = ServerSeen(
                int(row[_SCUR]), not status.startswith("MAINT"), status.startswith("DRAIN"), tally
            )
    return backends


def commands(
    worker: Worker,
    maps: Mapping[str, Mapping[str, str]],
    servers: Mapping[str, Mapping[str, str]],
    left_out: Collection[Which] = (),
) -> list[str]:
    """Commands that are missing, in an order in which no request meets a place that is half made.

    New servers, then what an arm is called, then where traffic goes. A server that is no longer wanted is left alone
    in the pass that moves the traffic away, taken out in a later one, and deleted when it has answered all it had. One
    of ``left_out`` stays where it is and gets no new requests.
    """
    wanted = Worker(maps, {})
    found: list[str] = []
    for backend, present in worker.backends.items():
        place = backend.rpartition(":")[0]
        settled = (worker.maps["arms.map"].get(place), worker.weight(place) > 0) == (
            maps["arms.map"].get(place),
            wanted.weight(place) > 0,
        )
        settled = settled or worker.weight(place) == 0
        for name, server in present.items():
            if name in servers.get(backend, {}):
                continue
            if server.enabled and settled:
                found.append(f"set server {backend}/{name} state maint")
            elif not server.enabled and not server.sessions:
                found.append(f"del server {backend}/{name}")
        for name, address in servers.get(backend, {}).items():
            if name not in present:
                found.append(f"add server {backend}/{name} {address}")
            if name not in present or not present[name].enabled:
                found.append(f"enable server {backend}/{name}")
            elif present[name].left_out != ((backend, name) in left_out):
                found.append(f"set server {backend}/{name} state {'ready' if present[name].left_out else 'drain'}")
    for file in sorted(maps, key=_ORDER.index):
        found += _map_commands(file, worker.maps[file], maps[file])
    return found


_ORDER = (
    "arms.map",
    *assignment.MAPS,
    counting.MAP,
    mirroring.MAP,
    outcomes.MAP,
    shadowing.MAP,
    budget.MAP,
    "reasons.map",
    "routes.map",
    "names.map",
)
"""Names lead to what they stand for, so they come last."""


def _map_commands(file: str, have: Mapping[str, str], want: Mapping[str, str]) -> Iterator[str]:
    for key, value in want.items():
        if key not in have:
            yield f"add map {file} {key} {value}"
        elif have[key] != value:
            yield f"set map {file} {key} {value}"
    for key in have.keys() - want.keys():
        yield f"del map {file} {key}"
