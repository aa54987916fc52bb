"""An API server that misbehaves, between it and a whole operator: each fault ends in the declared state."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from tests.apiserver.conftest import Cluster, Running, StartOperator, model
from tests.rig import fault_proxy
from tests.rig.control_plane import write_kubeconfig
from tests.rig.fault_proxy import Exchange, FaultProxy, Rule, answer, freeze, status_object, writes


@dataclasses.dataclass
class Scene:
    """An operator that reaches ``cluster`` through ``proxy`` and has brought one Model's children about."""

    cluster: Cluster
    proxy: FaultProxy
    operator: Running
    kubeconfig: pathlib.Path

    async def children(self, name: str) -> set[str]:
        found = await asyncio.to_thread(self.cluster.managed)
        return {item["kind"] for item in found if item["metadata"]["labels"]["penstock.dev/model"] == name}

    async def converges(self) -> None:
        """A Model applied now has its children, and one deleted has none."""
        await asyncio.to_thread(self.cluster.apply, model("later"))
        await asyncio.to_thread(self.cluster.kubectl, "delete", "model", "first")
        await until(lambda: self._declared())

    async def _declared(self) -> bool:
        return await self.children("later") == ALL and await self.children("first") == set()


ALL = {"Deployment", "Service", "ConfigMap"}


async def until(holds: Callable[[], Awaitable[bool]], deadline_s: float = 90) -> None:
    async with asyncio.timeout(deadline_s):
        while not await holds():
            await asyncio.sleep(0.1)


@pytest.fixture
async def scene(cluster: Cluster, start_operator: StartOperator, tmp_path: pathlib.Path) -> AsyncIterator[Scene]:
    kubeconfig = tmp_path / "proxied.kubeconfig"
    async with fault_proxy.running(cluster.plane.url, cluster.plane.ca_file) as proxy:
        write_kubeconfig(kubeconfig, proxy.url, cluster.plane.tokens["admin"])
        made = Scene(cluster, proxy, start_operator(kubeconfig), kubeconfig)
        await asyncio.to_thread(cluster.apply, model("first"))

        async def started() -> bool:
            return await made.children("first") == ALL

        await until(started)
        yield made


async def everywhere(scene: Scene, line: bytes) -> None:
    for stream in list(scene.proxy.streams):
        await stream.inject(line)


@pytest.mark.parametrize("code", [410, 500, 504])
async def test_an_error_inside_every_watch(scene: Scene, code: int) -> None:
    await everywhere(scene, b'{"type": "ERROR", "object": %s}' % status_object(code))
    await scene.converges()


async def test_a_line_that_is_no_json_inside_every_watch(scene: Scene) -> None:
    await everywhere(scene, b"<html>bad gateway</html>")
    await scene.converges()


async def test_every_watch_cut(scene: Scene) -> None:
    for stream in list(scene.proxy.streams):
        stream.cut()
    await scene.converges()


async def test_410_as_the_answer_to_every_watch(scene: Scene) -> None:
    scene.proxy.add(Rule(lambda request: request.watch, answer(410), times=14))
    for stream in list(scene.proxy.streams):
        stream.cut()
    await scene.converges()


async def test_every_watch_silent(scene: Scene) -> None:
    for stream in list(scene.proxy.streams):
        stream.freeze()
    await scene.converges()


async def test_401_until_the_token_is_rotated(scene: Scene) -> None:
    admin = scene.cluster.plane.tokens["admin"]
    revoked = Rule(lambda request: request.token != "rotated", answer(401))

    async def as_admin(exchange: Exchange) -> None:
        exchange.incoming_headers["Authorization"] = f"Bearer {admin}"
        await exchange.forward()

    scene.proxy.add(revoked)
    scene.proxy.add(Rule(lambda request: request.token == "rotated", as_admin))
    write_kubeconfig(scene.kubeconfig, scene.proxy.url, "rotated")
    for stream in list(scene.proxy.streams):
        stream.cut()
    await scene.converges()


async def test_429_that_asks_to_come_back(scene: Scene) -> None:
    scene.proxy.add(Rule(lambda request: True, answer(429, headers={"Retry-After": "1"}), times=30))
    await scene.converges()


async def test_writes_whose_answers_are_lost(scene: Scene) -> None:
    async def lose(exchange: Exchange) -> None:
        await exchange.upstream()
        exchange.abort()

    scene.proxy.add(Rule(lambda r: writes(r) and "leases" not in r.path, lose, times=4))
    await scene.converges()


async def test_two_minutes_without_list_and_watch_turn_health_red_and_end_green(scene: Scene) -> None:
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient() as client:

        async def answers(status: int) -> bool:
            return (await client.get(f"{scene.operator.health}/healthz")).status_code == status

        assert await answers(200)
        end = loop.time() + 120
        silent = scene.proxy.add(Rule(lambda r: r.watch, freeze))
        failing = scene.proxy.add(Rule(lambda r: r.verb == "GET" and "leases" not in r.path, answer(503)))
        for stream in list(scene.proxy.streams):
            stream.cut()
        await until(lambda: answers(500), 120)
        complaint = (await client.get(f"{scene.operator.health}/healthz")).text
        assert f"in {scene.cluster.namespace}: no contact for" in complaint

        async def over() -> bool:
            return loop.time() >= end

        await until(over, 130)
        scene.proxy.remove(silent)
        scene.proxy.remove(failing)
        await scene.converges()
        await until(lambda: answers(200))
