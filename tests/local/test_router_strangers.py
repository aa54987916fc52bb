"""What clients of a shared router are not told and cannot do: to the Models of others, and to what others declared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from operators.api.plan import Arm, Route
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from operators.router.table import Table, successor
from tests.rig import ports
from tests.rig.backends import DEADLINE_S, STOP_TIMEOUT_S, backend


@pytest.fixture
def listen() -> Listen:
    http, grpc, metrics = ports.free(3)
    return Listen("127.0.0.1", http, grpc, metrics_port=metrics)


@pytest.fixture
async def clients(tmp_path: Path, listen: Listen) -> AsyncIterator[httpx.AsyncClient]:
    """Model blue/secret, which answers `server`, behind a shared router with a catalog, which answers `catalog`."""
    router = Router(tmp_path / "router", listen, haproxy(), os.environ, lambda: None)
    async with backend("server") as server, backend("catalog") as catalog:
        await router.start()
        try:
            route = Route("blue", "secret", (Arm("secret-r1", "r1", "fp32", 10_000),))
            await router.apply(successor(Table(), [route], {"blue/secret-r1": (server.server,)}, catalog.server))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listen.http_port}", timeout=DEADLINE_S) as client:
                yield client
        finally:
            await router.stop(STOP_TIMEOUT_S)


@pytest.mark.parametrize("host", ["router", "secret.blue", "secret.blue.example.com"])
@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "/metrics?x"])
async def test_metrics_are_not_for_clients(clients: httpx.AsyncClient, path: str, host: str) -> None:
    assert (await clients.get(path, headers={"host": host})).status_code == 404


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/grpc", "penstock-model": "blue/secret"}])
@pytest.mark.parametrize("host", ["router", "secret.blue"])
@pytest.mark.parametrize("path", ["/debug/requests", "/debug%2frequests", "/%64ebug/requests?x"])
async def test_what_others_asked_a_server_is_not_for_clients(
    clients: httpx.AsyncClient, path: str, host: str, headers: dict[str, str]
) -> None:
    assert (await clients.get(path, headers={"host": host, **headers})).status_code == 404


async def test_metrics_are_at_a_port_of_their_own_and_nothing_else_is(
    clients: httpx.AsyncClient, listen: Listen
) -> None:
    at = f"http://127.0.0.1:{listen.metrics_port}"
    metrics = await clients.get(f"{at}/metrics")
    assert metrics.status_code == 200
    assert 'proxy="blue:secret:a:h1"' in metrics.text
    assert (await clients.get(f"{at}/blue/secret/v2")).status_code == 404


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/blue/secret/v2/repository/models/secret/unload", "router"),
        ("/blue/secret/v2/repository/models/secret/load", "router"),
        ("/blue/secret/v2/%72epository/models/secret/unload", "router"),
        ("/blue/secret/v2/repository%2fmodels/secret/unload", "router"),
        ("/v2/repository/models/secret/unload", "secret.blue"),
    ],
)
async def test_nobody_loads_or_unloads_a_model_through_the_router(
    clients: httpx.AsyncClient, path: str, host: str
) -> None:
    assert (await clients.post(path, headers={"host": host})).text == "catalog"


@pytest.mark.parametrize("method", ["RepositoryModelUnload", "RepositoryModelLoad", "%52epositoryModelUnload"])
async def test_nobody_loads_or_unloads_a_model_through_the_router_by_grpc(
    clients: httpx.AsyncClient, method: str
) -> None:
    headers = {"content-type": "application/grpc", "penstock-model": "blue/secret"}
    answer = await clients.post(f"/inference.GRPCInferenceService/{method}", headers=headers, content=bytes(80))
    assert answer.text == "catalog"


@pytest.mark.parametrize(
    "path",
    [
        "/red/mine/../../blue/secret/v2/models/secret",
        "/red/mine/v2/../../../blue/secret/v2/models/secret",
        "/red/mine/%2e%2e/%2e%2e/blue/secret/v2/models/secret",
        "//blue/secret/v2/models/secret",
        "/blue%2fsecret/v2/models/secret",
        "/blue/secret%2fv2/models/secret",
        "/blue;x/secret/v2/models/secret",
        "/BLUE/secret/v2/models/secret",
    ],
)
async def test_a_path_means_what_it_says_and_is_never_resolved(
    clients: httpx.AsyncClient, listen: Listen, path: str
) -> None:
    # Written by hand: clients resolve dots before they send.
    raw = f"GET {path} HTTP/1.1\r\nhost: router\r\nconnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", listen.http_port)
    writer.write(raw.encode())
    answer = (await reader.read()).decode()
    writer.close()
    assert "server" not in answer.rpartition("\r\n")[2]
