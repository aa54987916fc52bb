"""Each fault that is known to blind a watcher, between a cache and a real API server, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from operators.runtime import health
from operators.runtime.backoff import Backoff
from operators.runtime.cache import STEADY, Cache, Timing
from operators.runtime.connection import Connection
from operators.runtime.credentials import Kubeconfig
from operators.runtime.errors import Gone
from operators.runtime.resource import Object, Resource
from operators.runtime.throttle import Throttle
from tests.rig import fault_proxy, loops
from tests.rig.control_plane import ControlPlane, write_kubeconfig
from tests.rig.fault_proxy import FaultProxy, Rule, answer, lists, status_object, watches

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PROMPT = Backoff(first_s=0.1, cap_s=0.5, random=random.Random(1))
BRISK = Timing(watch_s=2, silence_s=3)


@dataclasses.dataclass
class Scene:
    """A cache that sees ``namespace`` through a proxy, beside the truth."""

    plane: ControlPlane
    namespace: str
    proxy: FaultProxy
    connection: Connection
    kubeconfig: Path
    resource: Resource = CONFIG_MAPS

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return await asyncio.to_thread(self.plane.kubectl, "-n", self.namespace, *arguments, stdin=stdin)

    async def put(self, **values: str) -> None:
        """Make ConfigMaps by these names hold these values."""
        maps = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}
            for name, value in values.items()
        ]
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": maps})
        await self.kubectl("apply", "--server-side", "-f", "-", stdin=body)

    async def change_everything(self) -> None:
        """One object anew, one changed, one gone."""
        await self.put(first="changed", third="new")
        await self.kubectl("delete", "configmap", "second")

    async def truth(self) -> dict[str, Object]:
        text = await self.kubectl("get", "--raw", self.resource.path(self.namespace))
        named = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        items = [named | item for item in json.loads(text)["items"]]
        for item in items:
            item["metadata"].pop("managedFields", None)
        return {item["metadata"]["name"]: item for item in items}

    async def equal(self, cache: Cache) -> None:
        """Wait until the cache equals the server."""

        async def is_equal() -> bool:
            return {obj["metadata"]["name"]: obj for obj in cache.list()} == await self.truth()

        await until(is_equal)

    @contextlib.asynccontextmanager
    async def following(
        self, timing: Timing = STEADY, backoff: Backoff = PROMPT, optional: bool = False
    ) -> AsyncIterator[Cache]:
        """A cache at work."""
        clock = asyncio.get_running_loop().time
        cache = Cache(self.connection, self.resource, backoff, clock, self.namespace, timing=timing, optional=optional)
        task = asyncio.create_task(cache.run())
        try:
            yield cache
        finally:
            assert not task.done(), "the cache gave up"
            task.cancel()
            await asyncio.wait({task})

    @contextlib.asynccontextmanager
    async def seeing(self, timing: Timing = STEADY, backoff: Backoff = PROMPT) -> AsyncIterator[Cache]:
        """A cache at work that has seen two objects, its watch open."""
        await self.put(first="old", second="old")
        async with self.following(timing, backoff) as cache:
            await cache.wait_synced()
            await until(lambda: self.proxy.streams)
            yield cache

    async def miss_everything(self) -> None:
        """Change the server's state while the watch brings nothing."""
        for stream in self.proxy.streams:
            stream.freeze()
        await self.change_everything()


async def until(condition: Callable[[], object], deadline_s: float = 60) -> None:
    async with asyncio.timeout(deadline_s):
        while not (await seen if isinstance(seen := condition(), Awaitable) else seen):
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def setting(plane: ControlPlane, namespace: str, folder: Path, token: str | None = None) -> AsyncIterator[Scene]:
    kubeconfig = folder / "proxied.kubeconfig"
    throttle = Throttle(1000, 1000, asyncio.get_running_loop().time)
    async with fault_proxy.running(plane.url, plane.ca_file) as proxy:
        write_kubeconfig(kubeconfig, proxy.url, token or plane.tokens["admin"])
        source = Kubeconfig(str(kubeconfig))
        async with await Connection.open(source, throttle, random.Random(1)) as connection:
            yield Scene(plane, namespace, proxy, connection, kubeconfig)


@pytest.fixture
async def scene(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with setting(control_plane, namespace, tmp_path) as made:
        yield made


def error_event(code: int) -> bytes:
    return b'{"type": "ERROR", "object": %s}' % status_object(code)


async def test_follows_what_is_created_changed_and_deleted(scene: Scene) -> None:
    told: list[str] = []
    async with scene.seeing() as cache:
        cache.on_change(lambda obj: told.append(obj["metadata"]["name"]))
        await scene.change_everything()
        await scene.equal(cache)
    assert sorted(told) == ["first", "first", "second", "second", "third"]
    assert scene.proxy.count(lists("configmaps")) == 1


async def test_a_handler_that_fails_costs_no_other_its_call(scene: Scene) -> None:
    told: list[str] = []

    def fail(_: Object) -> None:
        raise ValueError("a handler's own fault")

    async with scene.following() as cache:
        cache.on_change(fail)
        cache.on_change(lambda obj: told.append(obj["metadata"]["name"]))
        await scene.put(first="new", second="new")
        await scene.equal(cache)
    assert sorted(told) == ["first", "second"]


async def test_lists_page_by_page(scene: Scene) -> None:
    await scene.put(a="1", b="2", c="3", d="4", e="5")
    listing = await scene.connection.list(CONFIG_MAPS, scene.namespace, page=2)
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b", "c", "d", "e"]
    assert scene.proxy.count(lists("configmaps")) == 3


@pytest.mark.parametrize("line", [error_event(410), error_event(500), error_event(504), b"<html>oops</html>"])
async def test_lists_again_after_a_line_in_the_stream_that_is_no_event(scene: Scene, line: bytes) -> None:
    async with scene.seeing() as cache:
        (stream,) = scene.proxy.streams
        await scene.miss_everything()
        await stream.inject(line)
        await scene.equal(cache)
    assert scene.proxy.count(lists("configmaps")) == 2


@pytest.mark.parametrize("status", [410, 500, 504, 403])
async def test_lists_again_after_a_watch_refused_by_http(scene: Scene, status: int) -> None:
    async with scene.seeing() as cache:
        scene.proxy.add(Rule(watches("configmaps"), answer(status), times=1))
        (stream,) = scene.proxy.streams
        await scene.miss_everything()
        stream.cut()
        await scene.equal(cache)
    assert scene.proxy.count(lists("configmaps")) == 2


async def test_the_api_server_says_itself_when_a_version_is_too_old(scene: Scene) -> None:
    scene.resource = gates(scene)
    await define(scene)
    with pytest.raises(Gone):
        async for _ in scene.connection.watch(scene.resource, "1", scene.namespace):
            pass


async def test_goes_on_from_where_a_watch_was_cut_between_events(scene: Scene) -> None:
    async with scene.seeing() as cache:
        (stream,) = scene.proxy.streams
        await scene.miss_everything()
        stream.cut()
        await scene.equal(cache)
    assert scene.proxy.count(lists("configmaps")) == 1


async def test_goes_on_from_where_a_watch_was_cut_within_an_event(scene: Scene) -> None:
    async with scene.seeing() as cache:
        (stream,) = scene.proxy.streams
        stream.cut_within_next()
        await scene.change_everything()
        await scene.equal(cache)
    assert scene.proxy.count(watches("configmaps")) >= 2
    assert scene.proxy.count(lists("configmaps")) == 1


async def test_goes_on_from_where_a_watch_fell_silent(scene: Scene) -> None:
    async with scene.seeing(BRISK) as cache:
        await scene.miss_everything()
        await scene.equal(cache)
    assert scene.proxy.count(lists("configmaps")) == 1


def test_comes_back_after_lists_have_failed_for_two_minutes(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    """The cache's own timing on a clock ten times as fast: two minutes to the cache are twelve seconds."""

    async def outage() -> None:
        loop = asyncio.get_running_loop()
        patient = Backoff(first_s=0.5, cap_s=30, random=random.Random(1))
        async with (
            setting(control_plane, namespace, tmp_path) as scene,
            scene.seeing(backoff=patient) as cache,
        ):
            (stream,) = scene.proxy.streams
            failing = scene.proxy.add(Rule(lists("configmaps"), answer(503)))
            await scene.miss_everything()
            began = loop.time()
            await stream.inject(error_event(410))
            await until(lambda: loop.time() >= began + 120, deadline_s=150)
            assert cache.trouble.endswith("503 : made by the fault proxy")
            scene.proxy.remove(failing)
            await until(lambda: not cache.trouble)
            await scene.equal(cache)

    loops.hurried(outage(), speed=10)


async def test_takes_up_a_rotated_token(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    def kubectl(*arguments: str) -> str:
        return control_plane.kubectl("-n", namespace, *arguments).strip()

    def token(bound_to: str) -> str:
        kubectl("create", "secret", "generic", bound_to)
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={bound_to}")
        return kubectl("create", "token", "watcher", *bound)

    kubectl("create", "serviceaccount", "watcher")
    kubectl("create", "role", "watcher", "--verb=get,list,watch", "--resource=configmaps")
    kubectl("create", "rolebinding", "watcher", "--role=watcher", f"--serviceaccount={namespace}:watcher")
    old, new = token("old"), token("new")
    async with (
        setting(control_plane, namespace, tmp_path, old) as scene,
        scene.seeing(BRISK) as cache,
    ):
        write_kubeconfig(scene.kubeconfig, scene.proxy.url, new)
        await scene.kubectl("delete", "secret", "old")
        await until(lambda: any(request.status == 401 for request in scene.proxy.requests))
        await scene.change_everything()
        await scene.equal(cache)
        assert {request.status for request in scene.proxy.requests if request.token == new} <= {0, 200}
        assert scene.proxy.requests[-1].token == new


async def test_comes_back_when_429_asks_it_to(scene: Scene) -> None:
    async with scene.seeing() as cache:
        (stream,) = scene.proxy.streams
        busy = answer(429, headers={"Retry-After": "1"})
        scene.proxy.add(Rule(lists("configmaps"), busy, times=2))
        await scene.miss_everything()
        await stream.inject(error_event(410))
        await scene.equal(cache)
    requests = [request for request in scene.proxy.requests if lists("configmaps")(request)]
    assert [request.status for request in requests] == [200, 429, 429, 200]
    assert requests[2].at >= requests[1].at + 1
    assert requests[3].at >= requests[2].at + 1


def gates(scene: Scene) -> Resource:
    return Resource(f"{scene.namespace}.example.com", "v1", "gates", "Gate")


async def define(scene: Scene) -> None:
    """Make the API server know gates, and have one."""
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": str(scene.resource)},
        "spec": {
            "group": scene.resource.group,
            "scope": "Namespaced",
            "names": {"plural": "gates", "singular": "gate", "kind": "Gate"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    gate = {"apiVersion": scene.resource.api_version, "kind": "Gate", "metadata": {"name": "one"}}

    async def created() -> bool:
        try:
            await scene.kubectl("create", "-f", "-", stdin=json.dumps(gate))
        except subprocess.SubprocessError:
            return False  # established, but not served yet
        return True

    await scene.kubectl("create", "-f", "-", stdin=json.dumps(definition))
    await until(created)


async def test_waits_for_a_resource_that_does_not_exist_yet(scene: Scene) -> None:
    scene.resource = gates(scene)
    async with scene.following() as cache:
        await until(lambda: "404" in cache.trouble)
        assert cache.trouble.endswith(
            f"; the cluster has no {scene.resource}: install them, Penstock's by the chart penstock-crds"
        )
        assert not cache.synced
        await define(scene)
        await until(lambda: cache.get(scene.namespace, "one"))
        await scene.equal(cache)
        await scene.kubectl("delete", "crd", str(scene.resource))
        await until(lambda: not cache.list())


async def test_an_optional_resource_is_empty_and_no_trouble_until_it_is_installed(scene: Scene) -> None:
    scene.resource = gates(scene)
    told: list[bool] = []
    async with scene.following(dataclasses.replace(BRISK, absent_s=0.1), optional=True) as cache:
        cache.on_served(lambda: told.append(cache.is_served))
        await cache.wait_synced()
        assert (cache.is_served, cache.trouble, cache.list()) == (False, "", [])
        await define(scene)
        await until(lambda: cache.get(scene.namespace, "one"))
        await scene.equal(cache)
        await scene.kubectl("delete", "crd", str(scene.resource))
        await until(lambda: not cache.is_served)
    assert (cache.list(), told) == ([], [False, True, False])


async def test_sees_again_once_a_permission_is_given_back(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    role = ("role", "reader", "--verb=get,list,watch", "--resource=configmaps")
    binding = ("rolebinding", "reader", "--role=reader", "--user=operator")
    async with setting(control_plane, namespace, tmp_path, control_plane.tokens["operator"]) as scene:
        await scene.kubectl("create", *role)
        await scene.kubectl("create", *binding)
        async with scene.seeing(BRISK) as cache:
            await scene.kubectl("delete", "rolebinding", "reader")
            await until(lambda: "403" in cache.trouble)
            await scene.change_everything()
            await scene.kubectl("create", *binding)
            await scene.equal(cache)


async def test_health_is_red_while_a_watch_is_blind_and_green_after(scene: Scene) -> None:
    clock = asyncio.get_running_loop().time
    async with scene.seeing(BRISK) as cache, contextlib.AsyncExitStack() as stack:
        checks = [health.sees(cache, clock, blind_s=4)]
        port = await stack.enter_async_context(health.serving("127.0.0.1", 0, checks, [health.synced(cache)]))
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def healthz() -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}/healthz") as response:
                return response.status, await response.text()

        async def is_red() -> bool:
            return (await healthz())[0] == 500

        async def is_green() -> bool:
            return (await healthz())[0] == 200

        assert await healthz() == (200, "ok\n")
        silent = scene.proxy.add(Rule(watches("configmaps"), fault_proxy.freeze))
        await scene.miss_everything()
        await until(is_red)
        assert (await healthz())[1].startswith(f"cache of configmaps in {scene.namespace}: no contact for ")
        scene.proxy.remove(silent)
        await until(is_green)
        await scene.equal(cache)
