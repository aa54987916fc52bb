"""Who is compared: Penstock and its peers, each as a command that serves one model."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx

from benchmarks import connections, dialects, environments, processes
from benchmarks.models import Model
from benchmarks.peers import PEERS

OURS = "penstock"
ROOT = Path(__file__).parents[1]
_START_S = 300.0
_POLL_S = 0.005


class NotServing(Exception):
    """A server ended, or never gave its first answer."""


@dataclass(frozen=True)
class Contestant:
    """A server with its settings."""

    name: str
    dialects: Mapping[str, str]
    """What it speaks: ``json``, ``binary`` and ``grpc`` → the dialect in which that is said to it."""
    environment: str = ""
    """Folder under ``peers``; ours has none."""
    batch: int = 1

    def command(self, model: Model, http_port: int, grpc_port: int) -> tuple[str, ...]:
        """What serves ``model`` there."""
        ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
        if not self.environment:
            return (sys.executable, "-m", "serving", "serve", str(model.path), *ports)
        interpreter, server = environments.python(self.environment), PEERS / self.environment / "server.py"
        about = ("--dims", ",".join(map(str, model.given.shape[1:])), "--batch", str(self.batch))
        return (str(interpreter), str(server), model.name, str(model.path), *about, *ports)


_V2 = {"json": "json", "binary": "binary", "grpc": "grpc"}
_JSON_GRPC = {"json": "json", "grpc": "grpc"}

CONTESTANTS = {
    one.name: one
    for one in (
        Contestant(OURS, _V2),
        Contestant("triton", _V2, "triton"),
        Contestant("triton+batching", _V2, "triton", batch=32),
        Contestant("kserve", _V2, "kserve"),
        Contestant("mlserver", _JSON_GRPC, "mlserver"),
        Contestant("mlserver+batching", _JSON_GRPC, "mlserver", batch=32),
        Contestant("ray", _V2, "ray"),
        Contestant("bentoml", {"json": "bento"}, "bentoml"),
        Contestant("bentoml+batching", {"json": "bento"}, "bentoml", batch=32),
        Contestant("litserve", {"json": "json"}, "litserve"),
        Contestant("litserve+batching", {"json": "json"}, "litserve", batch=32),
        Contestant("fastapi", {"json": "json", "binary": "binary"}, "fastapi"),
        Contestant("grpcio", {"grpc": "grpc"}, "grpcio"),
    )
}


@dataclass(frozen=True)
class Server:
    """A contestant that serves a model."""

    contestant: Contestant
    model: Model
    trees: tuple[processes.Tree, ...]
    """Its own, and that of a router before it."""
    http_port: int
    grpc_port: int
    started: float
    """On the clock of ``time.monotonic``."""
    folder: Path

    def port(self, protocol: str) -> int:
        return self.grpc_port if protocol == "grpc" else self.http_port

    def request(self, protocol: str) -> bytes:
        """The bytes that ask it."""
        asked = dialects.request(self.contestant.dialects[protocol], self.model)
        return connections.prepared(asked, self.port(protocol))

    def check(self, protocol: str) -> None:
        """Ask it once; raises what ``dialects.check`` raises."""
        dialects.check(self.contestant.dialects[protocol], self.model, self.port(protocol))

    def await_answer(self, protocol: str) -> float:
        """Seconds from its start to the first right answer. Raises ``NotServing`` if none comes."""
        pause = threading.Event()
        while True:
            try:
                self.check(protocol)
                return time.monotonic() - self.started
            except (OSError, httpx.HTTPError, grpc.RpcError) as error:
                took_s = time.monotonic() - self.started
                if not all(tree.alive for tree in self.trees) or took_s > _START_S:
                    said = f"{self.contestant.name} serves no {self.model.name} over {protocol} after {took_s:.0f} s"
                    raise NotServing(f"{said} ({error}); its output: {self.output()}") from error
            pause.wait(_POLL_S)

    def output(self) -> str:
        return (self.folder / "output.log").read_text(errors="replace")[-6000:]


@contextlib.contextmanager
def serving(
    contestant: Contestant,
    model: Model,
    cpu: int | None = processes.SERVER_CPU,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """``contestant`` with ``model``, started and not yet ready."""
    http_port, grpc_port = processes.free_ports(2)
    command = contestant.command(model, http_port, grpc_port)
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        started = time.monotonic()
        about = {"PYTHONPATH": str(ROOT), "PATH": _path(command[0]), **(environment or {})}
        tree = processes.start(command, folder, about, cpu)
        try:
            yield Server(contestant, model, (tree,), http_port, grpc_port, started, folder)
        finally:
            tree.end()


def _path(interpreter: str) -> str:
    """What a peer starts by name is looked for in its own environment first."""
    return os.pathsep.join((str(Path(interpreter).parent), os.environ.get("PATH", "")))
