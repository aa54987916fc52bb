"""Leadership with a real Lease: one works at a time, whatever cuts it off, and nobody waits without need."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from operators.runtime.connection import Connection
from operators.runtime.credentials import Kubeconfig
from operators.runtime.errors import Fenced
from operators.runtime.lease import Lease, Timing
from operators.runtime.resource import Resource
from operators.runtime.throttle import Throttle
from tests.rig import fault_proxy
from tests.rig.control_plane import ControlPlane, write_kubeconfig
from tests.rig.fault_proxy import Effect, Exchange, Rule, writes

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SHORT = Timing(duration_s=4, renew_s=2, retry_s=0.5)

Events = list[tuple[str, str]]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def connecting(url: str, plane: ControlPlane, path: Path) -> AsyncIterator[Connection]:
    write_kubeconfig(path, url, plane.tokens["admin"], plane.ca_file if url == plane.url else None)
    throttle = Throttle(1000, 1000, asyncio.get_running_loop().time)
    async with await Connection.open(Kubeconfig(str(path)), throttle, random.Random(1)) as connection:
        yield connection


def candidate(connection: Connection, namespace: str, identity: str, clock: Callable[[], float]) -> Lease:
    return Lease(
        connection,
        namespace,
        "operator",
        identity,
        clock,
        lambda: datetime.datetime.now(datetime.UTC),
        random.Random(identity),
        SHORT,
    )


@contextlib.asynccontextmanager
async def campaigning(lease: Lease, identity: str, events: Events) -> AsyncIterator[asyncio.Task[None]]:
    """A candidate whose work does nothing but say when it begins and ends."""

    async def work() -> None:
        events.append((identity, "began"))
        try:
            await asyncio.Event().wait()
        finally:
            events.append((identity, "ended"))

    task = asyncio.create_task(lease.run(work))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def spec(plane: ControlPlane, namespace: str) -> dict[str, object]:
    stored = json.loads(plane.kubectl("-n", namespace, "get", "lease", "operator", "-o", "json"))["spec"]
    return {key: stored.get(key) for key in ("holderIdentity", "leaseDurationSeconds", "leaseTransitions")}


async def test_the_next_leads_as_soon_as_the_first_shuts_down(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    clock = asyncio.get_running_loop().time
    events: Events = []
    async with (
        fault_proxy.running(control_plane.url, control_plane.ca_file) as proxy,
        connecting(control_plane.url, control_plane, tmp_path / "a") as a,
        connecting(proxy.url, control_plane, tmp_path / "b") as b,
    ):
        first, second = (candidate(c, namespace, name, clock) for c, name in ((a, "first"), (b, "second")))
        async with campaigning(first, "first", events) as leading:
            await until(first.is_held)
            async with campaigning(second, "second", events):
                await until(lambda: len(proxy.requests) >= 3)
                assert (first.is_held(), second.is_held()) == (True, False)
                leading.cancel()
                await asyncio.wait({leading})
                assert not first.is_held()
                released = clock()
                await until(second.is_held)
                assert clock() < released + SHORT.duration_s
                held = spec(control_plane, namespace)
    assert events == [("first", "began"), ("first", "ended"), ("second", "began"), ("second", "ended")]
    assert held == {"holderIdentity": "second", "leaseDurationSeconds": 4, "leaseTransitions": 1}
    assert spec(control_plane, namespace) == {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "leaseTransitions": 1,
    }


async def break_off(exchange: Exchange) -> None:
    exchange.abort()


async def hang(exchange: Exchange) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("effect", [break_off, hang, fault_proxy.answer(500)])
async def test_a_leader_that_cannot_renew_stops_before_the_next_begins_and_leads_again_later(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, effect: Effect
) -> None:
    clock = asyncio.get_running_loop().time
    events: Events = []
    async with (
        fault_proxy.running(control_plane.url, control_plane.ca_file) as proxy,
        connecting(proxy.url, control_plane, tmp_path / "a") as a,
        connecting(control_plane.url, control_plane, tmp_path / "b") as b,
    ):
        first, second = (candidate(c, namespace, name, clock) for c, name in ((a, "first"), (b, "second")))
        async with campaigning(first, "first", events):
            await until(first.is_held)
            async with campaigning(second, "second", events):
                cut_off = proxy.add(Rule(lambda request: True, effect))
                await until(second.is_held)
                assert not first.is_held()
                proxy.remove(cut_off)
            await until(first.is_held)
    assert events == [
        ("first", "began"),
        ("first", "ended"),
        ("second", "began"),
        ("second", "ended"),
        ("first", "began"),
        ("first", "ended"),
    ]


async def test_a_leader_that_was_paused_writes_nothing_when_it_wakes(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    loop = asyncio.get_running_loop()
    paused_s = 0.0

    def clock() -> float:
        return loop.time() + paused_s

    map_ = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "written"}}
    async with (
        fault_proxy.running(control_plane.url, control_plane.ca_file) as proxy,
        connecting(control_plane.url, control_plane, tmp_path / "lease") as own,
    ):
        lease = candidate(own, namespace, "first", clock)
        write_kubeconfig(tmp_path / "work", proxy.url, control_plane.tokens["admin"])
        throttle = Throttle(1000, 1000, loop.time)
        source = Kubeconfig(str(tmp_path / "work"))
        async with await Connection.open(source, throttle, random.Random(1), lease.is_held) as connection:

            async def work() -> None:
                nonlocal paused_s
                await connection.apply(CONFIG_MAPS, map_)
                paused_s = 30  # as after SIGSTOP: the clock went on, nothing else did
                with pytest.raises(Fenced):
                    await connection.apply(CONFIG_MAPS, map_ | {"data": {"late": "yes"}})

            await lease.run(work)
    assert proxy.count(writes) == 1
