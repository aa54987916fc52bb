"""A router before one server, configured by what configures it everywhere else."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from benchmarks import processes
from benchmarks.contestants import OURS, Server
from operators.api.plan import FULL_WEIGHT, Arm, Route
from operators.router import configuration, mirroring, table
from operators.router.agent import haproxy


@contextlib.contextmanager
def routed(server: Server) -> Iterator[Server]:
    """``server`` as clients of a router of its own see it, both on the same processor."""
    http_port, grpc_port = processes.free_ports(2)
    arm = Arm("server", "1", "default", FULL_WEIGHT)
    target = table.Server("127.0.0.1", server.http_port, server.grpc_port, server.contestant.name == OURS)
    routes = [Route("default", server.model.name, (arm,))]
    wanted = table.successor(table.Table(), routes, {"default/server": (target,)}, None)
    folder = server.folder / "router"
    folder.mkdir()
    listen = configuration.Listen("127.0.0.1", http_port, grpc_port)
    folder.joinpath("haproxy.cfg").write_text(configuration.text(wanted, listen))
    for name, text in configuration.map_files(wanted).items():
        folder.joinpath(name).write_text(text)
    tree = processes.start(
        [str(haproxy()), "-W", "-f", "haproxy.cfg"], folder, mirroring.environment(), processes.SERVER_CPU
    )
    try:
        yield dataclasses.replace(server, http_port=http_port, grpc_port=grpc_port, trees=(*server.trees, tree))
    finally:
        tree.end()
