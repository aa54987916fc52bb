"""What is asked of whom, and what Penstock must show."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from benchmarks.contestants import CONTESTANTS, OURS


class Kind(enum.StrEnum):
    """What one measurement is."""

    LOAD = "load"
    """A closed loop over some connections: each sends as soon as it has its answer."""
    ROUTED = "routed"
    """The same through a router of its own, on the server's processor."""
    OPEN = "open"
    """An open loop: requests leave at random moments, so many a second."""
    START = "start"
    """From the start of the process, on all processors, to the first right answer; bytecode is there."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """One line of questions to several contestants, answered in one interleaved run."""

    name: str
    about: str
    kind: Kind
    model: str
    protocol: str
    connections: int
    """Those that are busy all the time; none in an open loop."""
    contestants: Sequence[str]
    rate: float = 0.0
    """Requests a second of an open loop."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Something that is measured."""

    name: str
    about: str
    peer_to_ours: bool = False
    """The ratio is the peer's to ours; otherwise ours to the peer's."""
    at_least: bool = False
    """A ratio should be large; otherwise small."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio to a peer that must be reached, at least or at most as its figure says."""

    workload: str
    figure: str
    peer: str
    bound: float


_SMALL = ("triton", "triton+batching", "kserve", "mlserver", "bentoml", "litserve", "fastapi")
_WITH_RAY = (*_SMALL, "ray")
_GRPC = ("triton", "triton+batching", "kserve", "mlserver", "grpcio")
_BATCHING = ("triton", "triton+batching", "mlserver+batching", "bentoml+batching", "litserve+batching")


def _load(name: str, about: str, model: str, protocol: str, connections: int, peers: Sequence[str]) -> Workload:
    return Workload(name, about, Kind.LOAD, model, protocol, connections, (OURS, *peers))


WORKLOADS = (
    _load("json-mlp-c1", "REST JSON, mlp, 1 connection", "mlp", "json", 1, _SMALL),
    _load("json-mlp-c8", "REST JSON, mlp, 8 connections", "mlp", "json", 8, _WITH_RAY),
    _load("json-mlp-c32", "REST JSON, mlp, 32 connections", "mlp", "json", 32, _SMALL),
    _load(
        "binary-mlp-c8",
        "REST binary, mlp, 8 connections",
        "mlp",
        "binary",
        8,
        ("triton", "triton+batching", "kserve", "fastapi"),
    ),
    _load("grpc-mlp-c1", "gRPC, mlp, 1 connection", "mlp", "grpc", 1, _GRPC),
    _load("grpc-mlp-c8", "gRPC, mlp, 8 connections", "mlp", "grpc", 8, (*_GRPC, "ray")),
    _load("grpc-mlp-c32", "gRPC, mlp, 32 connections", "mlp", "grpc", 32, _GRPC),
    _load(
        "binary-602k", "REST binary, 602 KB (cnn), 1 connection", "cnn", "binary", 1, ("triton", "kserve", "fastapi")
    ),
    _load(
        "json-1340k",
        "REST JSON, 1.34 MB (cnn), 1 connection",
        "cnn",
        "json",
        1,
        ("triton", "kserve", "mlserver", "bentoml", "litserve", "fastapi"),
    ),
    _load(
        "grpc-602k", "gRPC, 602 KB (cnn), 1 connection", "cnn", "grpc", 1, ("triton", "kserve", "mlserver", "grpcio")
    ),
    _load("batching-wide-c32", "REST JSON, wide, 32 connections, batched", "wide", "json", 32, _BATCHING),
    Workload(
        "routed-grpc-mlp-c8",
        "gRPC through the router, mlp, 8 connections",
        Kind.ROUTED,
        "mlp",
        "grpc",
        8,
        (OURS, "grpcio", "triton+batching", "triton"),
    ),
    Workload(
        "routed-grpc-602k",
        "gRPC through the router, 602 KB (cnn), 1 connection",
        Kind.ROUTED,
        "cnn",
        "grpc",
        1,
        (OURS, "grpcio", "triton"),
    ),
    Workload(
        "open-json-mlp-300",
        "Open loop, REST JSON, mlp, 300 requests a second",
        Kind.OPEN,
        "mlp",
        "json",
        0,
        (OURS, *_SMALL),
        rate=300.0,
    ),
    Workload(
        "start",
        "From the start of the process to the first right answer, and its memory then",
        Kind.START,
        "mlp",
        "json",
        1,
        (OURS, "triton", "kserve", "mlserver", "bentoml", "litserve", "fastapi"),
    ),
)

FIGURES = {
    one.name: one
    for one in (
        Figure("rate", "requests/s", at_least=True),
        Figure("cpu_us", "CPU µs a request", peer_to_ours=True, at_least=True),
        Figure("p50_ms", "p50 ms"),
        Figure("p99_ms", "p99 ms"),
        Figure("pss_mib", "PSS MiB"),
        Figure("start_s", "start s"),
        Figure("start_cpu_s", "start CPU s"),
    )
}

TARGETS = (
    Target("json-mlp-c8", "rate", "triton+batching", 1.3),
    Target("json-mlp-c8", "rate", "triton", 2.3),
    Target("json-mlp-c8", "rate", "kserve", 8.0),
    Target("json-mlp-c32", "rate", "triton+batching", 1.3),
    Target("binary-602k", "rate", "triton", 1.0),
    Target("binary-602k", "rate", "kserve", 10.0),
    Target("json-1340k", "cpu_us", "triton", 1.6),
    Target("grpc-mlp-c8", "rate", "triton", 1.0),
    Target("grpc-mlp-c8", "rate", "kserve", 2.0),
    Target("grpc-602k", "rate", "triton", 0.95),
    Target("batching-wide-c32", "rate", "triton+batching", 1.0),
    Target("batching-wide-c32", "p99_ms", "triton+batching", 0.7),
    Target("start", "start_s", "kserve", 0.25),
    Target("start", "pss_mib", "kserve", 0.6),
    Target("routed-grpc-mlp-c8", "rate", "grpcio", 2.5),
    Target("routed-grpc-mlp-c8", "rate", "triton+batching", 1.0),
    Target("routed-grpc-602k", "rate", "grpcio", 1.0),
)


class Unknown(Exception):
    """A name that nothing has."""


def selected(peers: Sequence[str] | None, workloads: Sequence[str] | None) -> tuple[Workload, ...]:
    """The workloads of these names, with these peers in them; None: all. Ours is always among the contestants.

    Raises ``Unknown`` for a name that does not exist, and for a workload without any of the peers.
    """
    known = [workload.name for workload in WORKLOADS]
    for names, among in ((peers or (), list(CONTESTANTS)), (workloads or (), known)):
        for name in names:
            if name not in among:
                raise Unknown(f"there is no '{name}'; expected some of {', '.join(among)}")
    chosen = []
    for workload in WORKLOADS:
        if workloads is None or workload.name in workloads:
            kept = tuple(c for c in workload.contestants if c == OURS or peers is None or c in peers)
            if len(kept) > 1:
                chosen.append(dataclasses.replace(workload, contestants=kept))
            elif workloads is not None:
                raise Unknown(f"none of {', '.join(peers or ())} takes part in {workload.name}; name other peers")
    return tuple(chosen)
