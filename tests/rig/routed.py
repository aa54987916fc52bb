"""Model servers behind the real router, without an operator: ``Router`` programs HAProxy and then lets it be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from operators.api.plan import Arm, Route, Split
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from operators.router.table import Server, Table, successor
from tests.rig import ports
from tests.rig.model_server import ModelServer

REVISION, VARIANT = "r1", "fp32"


@contextlib.contextmanager
def running(
    folder: Path, server: ModelServer, catalog: ModelServer, models: Sequence[str], splits: Sequence[Split] = ()
) -> Iterator[Listen]:
    """The router in ``folder`` with each of ``models`` at ``server``, and where clients reach it."""
    listen = Listen("127.0.0.1", *ports.free(2))
    made = Router(folder, listen, haproxy(), os.environ, lambda: None)
    assert server.grpc_port is not None
    at = Server("127.0.0.1", server.http_port, server.grpc_port, True)
    routes = [Route("default", name, (Arm(name, REVISION, VARIANT, 10_000),)) for name in models]
    servers = {f"default/{name}": (at,) for name in models}
    table = successor(Table(), [*routes, *splits], servers, Server("127.0.0.1", catalog.http_port, 0, True))

    async def begin() -> None:
        await made.start()
        await made.apply(table)
        await made.leave()

    async def end() -> None:
        again = Router(folder, listen, haproxy(), os.environ, lambda: None)
        await again.start()
        await again.stop(1.0)

    asyncio.run(begin())
    try:
        yield listen
    finally:
        asyncio.run(end())
