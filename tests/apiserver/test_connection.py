"""What the API server makes of our requests, and what we make of answers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from operators.runtime.connection import Connection, always
from operators.runtime.credentials import Kubeconfig
from operators.runtime.errors import (
    ApiError,
    BadConfiguration,
    Conflict,
    Fenced,
    Garbled,
    NotFound,
    Unreachable,
)
from operators.runtime.resource import Object, Resource
from operators.runtime.throttle import Throttle
from tests.rig import fault_proxy
from tests.rig.control_plane import ControlPlane, write_kubeconfig
from tests.rig.fault_proxy import Exchange, FaultProxy, Rule, answer, lists, writes

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
"""They have a status that no controller of this control plane writes."""


def ingress(namespace: str) -> Object:
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    metadata = {"namespace": namespace, "name": "gate"}
    return {
        "apiVersion": INGRESSES.api_version,
        "kind": INGRESSES.kind,
        "metadata": metadata,
        "spec": {"defaultBackend": backend},
    }


def at(address: str) -> Object:
    """The status of an Ingress."""
    return {"loadBalancer": {"ingress": [{"ip": address}]}}


@contextlib.asynccontextmanager
async def connecting(kubeconfig: Path, may_write: Callable[[], bool] = always) -> AsyncIterator[Connection]:
    throttle = Throttle(1000, 1000, asyncio.get_running_loop().time)
    source = Kubeconfig(str(kubeconfig))
    async with await Connection.open(source, throttle, random.Random(1), may_write) as connection:
        yield connection


@pytest.fixture
async def connection(control_plane: ControlPlane) -> AsyncIterator[Connection]:
    async with connecting(control_plane.kubeconfig()) as made:
        yield made


@pytest.fixture
async def proxy(control_plane: ControlPlane) -> AsyncIterator[FaultProxy]:
    async with fault_proxy.running(control_plane.url, control_plane.ca_file) as made:
        yield made


@pytest.fixture
async def proxied(control_plane: ControlPlane, proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Connection]:
    write_kubeconfig(tmp_path / "kubeconfig", proxy.url, control_plane.tokens["admin"])
    async with connecting(tmp_path / "kubeconfig") as made:
        yield made


def config_map(namespace: str, **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": "gate"},
        "data": data,
    }


async def test_applying_the_same_twice_writes_once(connection: Connection, namespace: str) -> None:
    first = await connection.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    second = await connection.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    assert second == first
    assert first["data"] == {"a": "1"}
    assert [entry["manager"] for entry in first["metadata"]["managedFields"]] == ["penstock"]


async def test_applying_leaves_the_fields_of_others_alone(
    connection: Connection, namespace: str, control_plane: ControlPlane
) -> None:
    await connection.apply(CONFIG_MAPS, config_map(namespace, a="1", b="2"))
    control_plane.kubectl("-n", namespace, "patch", "configmap", "gate", "-p", '{"data": {"a": "0", "c": "3"}}')
    applied = await connection.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    assert applied["data"] == {"a": "1", "c": "3"}


async def test_a_status_is_written_only_on_the_version_that_was_read(connection: Connection, namespace: str) -> None:
    wanted = ingress(namespace)
    read = await connection.apply(INGRESSES, wanted)
    written = await connection.patch_status(INGRESSES, read, at("192.0.2.1"))
    assert written["spec"] == wanted["spec"]
    assert written["status"] == at("192.0.2.1")
    with pytest.raises(Conflict):
        await connection.patch_status(INGRESSES, read, at("192.0.2.2"))
    assert await connection.patch_status(INGRESSES, written, at("192.0.2.1")) == written
    assert await connection.get(INGRESSES, namespace, "gate") == written


async def test_a_status_is_never_written_to_another_object_of_the_same_name(
    connection: Connection, namespace: str
) -> None:
    read = await connection.apply(INGRESSES, ingress(namespace))
    await connection.delete(INGRESSES, read)
    with pytest.raises(ApiError):
        await connection.patch_status(INGRESSES, read, at("192.0.2.1"))
    other = await connection.apply(INGRESSES, ingress(namespace))
    with pytest.raises(Conflict):
        await connection.patch_status(INGRESSES, read, at("192.0.2.1"))
    assert await connection.get(INGRESSES, namespace, "gate") == other


async def test_deletes_exactly_the_version_that_was_read(connection: Connection, namespace: str) -> None:
    read = await connection.create(CONFIG_MAPS, config_map(namespace, a="1"))
    changed = await connection.apply(CONFIG_MAPS, config_map(namespace, a="2"))
    with pytest.raises(Conflict):
        await connection.delete(CONFIG_MAPS, read)
    assert await connection.get(CONFIG_MAPS, namespace, "gate") == changed
    await connection.delete(CONFIG_MAPS, changed)
    with pytest.raises(NotFound):
        await connection.get(CONFIG_MAPS, namespace, "gate")
    await connection.delete(CONFIG_MAPS, changed)


async def test_what_exists_is_not_created_and_what_changed_is_not_replaced(
    connection: Connection, namespace: str
) -> None:
    read = await connection.create(CONFIG_MAPS, config_map(namespace, a="1"))
    with pytest.raises(Conflict):
        await connection.create(CONFIG_MAPS, config_map(namespace, a="1"))
    mine = copy.deepcopy(read) | {"data": {"a": "2"}}
    assert (await connection.replace(CONFIG_MAPS, mine))["data"] == {"a": "2"}
    with pytest.raises(Conflict):
        await connection.replace(CONFIG_MAPS, mine)


async def test_a_refusal_says_what_was_refused_and_why(connection: Connection, namespace: str) -> None:
    with pytest.raises(NotFound) as refusal:
        await connection.get(CONFIG_MAPS, namespace, "gate")
    assert str(refusal.value) == (
        f'GET /api/v1/namespaces/{namespace}/configmaps/gate: 404 NotFound: configmaps "gate" not found'
    )


async def test_nothing_is_written_by_one_who_does_not_lead(
    control_plane: ControlPlane, proxy: FaultProxy, namespace: str, tmp_path: Path
) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", proxy.url, control_plane.tokens["admin"])
    async with connecting(tmp_path / "kubeconfig", lambda: False) as fenced:
        assert (await fenced.list(CONFIG_MAPS, namespace)).items == []
        with pytest.raises(Fenced):
            await fenced.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    assert proxy.count(writes) == 0


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b'{"kind": "Status"}'])
async def test_an_answer_from_something_that_is_no_api_server_is_no_answer(
    proxied: Connection, proxy: FaultProxy, namespace: str, body: bytes
) -> None:
    proxy.add(Rule(lists("configmaps"), answer(200, body)))
    with pytest.raises(Garbled):
        await proxied.list(CONFIG_MAPS, namespace)


async def test_a_reply_that_is_lost_leaves_a_write_that_may_be_repeated(
    proxied: Connection, proxy: FaultProxy, namespace: str
) -> None:
    async def lose_the_reply(exchange: Exchange) -> None:
        await exchange.upstream()
        exchange.abort()

    proxy.add(Rule(writes, lose_the_reply, times=1))
    with pytest.raises(Unreachable):
        await proxied.apply(CONFIG_MAPS, config_map(namespace, a="1"))
    committed = await proxied.get(CONFIG_MAPS, namespace, "gate")
    assert await proxied.apply(CONFIG_MAPS, config_map(namespace, a="1")) == committed


async def test_an_api_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1", "none")
    async with connecting(tmp_path / "kubeconfig") as nowhere:
        with pytest.raises(Unreachable):
            await nowhere.get(CONFIG_MAPS, "default", "gate")


async def test_a_kubeconfig_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    for text in (None, "a: [", "kind: Config\n", "[]\n"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadConfiguration, match=str(path)):
            await Kubeconfig(str(path)).configuration()
