"""REST and gRPC on one port with TLS, and certificates that change under connections."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

from operators.api.errors import InvalidObject, Unreachable
from operators.router import certificate
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from tests.rig import certificates, ports
from tests.rig.backends import DEADLINE_S, STOP_TIMEOUT_S, backend, reloads, table


@dataclasses.dataclass
class Secure:
    router: Router
    tls: Path
    port: int
    authority: certificates.Authority

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/v2/models/digits/infer"

    def client(self) -> httpx.AsyncClient:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        return httpx.AsyncClient(verify=context, timeout=DEADLINE_S)

    async def presented(self) -> str:
        """What a new connection is shown."""
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", self.port))

    async def rotate(self) -> None:
        self.authority.issue(self.tls)
        await self.router.present(certificate.read(self.tls))


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Secure]:
    http_port, grpc_port, https_port = ports.free(3)
    router = Router(
        tmp_path / "router", Listen("127.0.0.1", http_port, grpc_port, https_port), haproxy(), os.environ, lambda: None
    )
    made = Secure(router, tmp_path / "tls", https_port, certificates.Authority())
    await made.rotate()
    await router.start()
    try:
        yield made
    finally:
        await router.stop(STOP_TIMEOUT_S)


async def grpc_says(channel: tritonclient.grpc.aio.InferenceServerClient) -> str:
    """The router's own answer to a call of a Model that it does not know."""
    with pytest.raises(tritonclient.grpc.aio.InferenceServerException) as found:
        await channel.get_model_metadata("none", headers={"penstock-model": "default/none"})
    return str(found.value)


def grpc_client(secure: Secure) -> tritonclient.grpc.aio.InferenceServerClient:
    credentials = grpc.ssl_channel_credentials(secure.authority.pem)
    return tritonclient.grpc.aio.InferenceServerClient(f"127.0.0.1:{secure.port}", ssl=True, creds=credentials)


UNKNOWN = "[StatusCode.NOT_FOUND] Request for unknown model: default/none"


async def test_rest_and_grpc_share_a_port_that_negotiates(secure: Secure) -> None:
    async with backend("r1") as r1, secure.client() as client, grpc_client(secure) as grpc_channel:
        await secure.router.apply(table(secure.router.table, r1))
        assert (await client.get(secure.url)).text == "r1"
        assert await grpc_says(grpc_channel) == UNKNOWN


async def test_another_certificate_is_presented_at_once_and_no_connection_is_dropped(secure: Secure) -> None:
    async with backend("r1") as r1, secure.client() as client, grpc_client(secure) as grpc_channel:
        await secure.router.apply(table(secure.router.table, r1))
        assert (await client.get(secure.url)).text == "r1"
        assert await grpc_says(grpc_channel) == UNKNOWN
        r1.go.clear()
        under_way = asyncio.create_task(client.get(secure.url))
        before, started = await secure.presented(), reloads(secure.router)
        await secure.rotate()
        assert await secure.presented() == (secure.tls / "tls.crt").read_text() != before
        r1.go.set()
        assert (await under_way).text == "r1"
        assert await grpc_says(grpc_channel) == UNKNOWN
        await secure.router.present(certificate.read(secure.tls))
        assert reloads(secure.router) == started + 1, "the same certificate is no change"
        assert [path.stat().st_mode & 0o777 for path in secure.router.folder.glob("tls-*.pem")] == [0o600]


async def test_a_certificate_that_haproxy_refuses_leaves_the_one_of_before(secure: Secure) -> None:
    before = await secure.presented()
    with pytest.raises(Unreachable, match="did not take its new configuration"):
        await secure.router.present("no certificate\n")
    certificates.swap(secure.tls, b"broken", b"broken")
    with pytest.raises(InvalidObject):
        certificate.read(secure.tls)
    assert await secure.presented() == before
    async with backend("r1") as r1:
        await secure.router.apply(table(secure.router.table, r1))
    assert await secure.presented() == before
