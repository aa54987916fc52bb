"""What every ``Store`` promises. Each implementation is one more rig; the sentences are the same for all."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from operators.api.base import APIObject, Condition
from operators.api.errors import InvalidObject
from operators.api.kinds import parse
from operators.api.model import Model
from operators.api.plan import Key
from operators.api.status import ModelStatus
from operators.store.base import Store
from operators.store.sqlite import SqliteStore

DEADLINE_S = 10.0


@dataclasses.dataclass(frozen=True)
class Rig:
    """A store, and what others do to the objects in it."""

    store: Store
    put: Callable[[dict[str, Any]], Awaitable[None]]
    remove: Callable[[Key], Awaitable[None]]
    spoil: Callable[[Key], Awaitable[None]]
    """Store a spec under the key that does not parse."""

    async def until(self, key: Key, holds: Callable[[APIObject | None], bool]) -> APIObject | None:
        """Reads may be stale, so wait for what was written to be seen."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds(found := await self.store.get(key)):
                await asyncio.sleep(0.02)
            return found


def _sqlite(folder: pathlib.Path) -> Rig:
    def clock() -> datetime.datetime:
        return datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

    store = SqliteStore.open(folder / "objects.db", clock, lambda key: None)

    async def put(data: dict[str, Any]) -> None:
        await store.apply(parse(data))

    async def spoil(key: Key) -> None:
        store.database.execute("""UPDATE objects SET spec = '{"nonsense": 1}' WHERE name = ?""", (key.name,))

    return Rig(store, put, store.delete, spoil)


@pytest.fixture(params=[_sqlite], ids=["sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Rig]:
    made: Rig = request.param(tmp_path)
    yield made
    if isinstance(made.store, SqliteStore):
        made.store.close()


def model(name: str = "digits", namespace: str = "default", replicas: int = 1) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"uri": "s3://models/m.onnx"}, "replicas": replicas},
    }


def key(name: str = "digits", namespace: str = "default") -> Key:
    return Key("Model", namespace, name)


def present(found: APIObject | None) -> bool:
    return found is not None


STATUS = ModelStatus(
    observed_generation=1,
    conditions=(
        Condition(
            type="Ready",
            status="True",
            reason="Serving",
            message="revision 1 serves",
            observed_generation=1,
            last_transition_time="2026-01-02T03:04:05Z",
        ),
    ),
    url="http://127.0.0.1:8080/default/digits",
)


async def test_an_object_that_does_not_exist_is_none(rig: Rig) -> None:
    assert await rig.store.get(key()) is None


async def test_what_was_put_is_got_with_generation_1_and_a_uid(rig: Rig) -> None:
    await rig.put(model(replicas=2))
    found = await rig.until(key(), present)
    assert isinstance(found, Model)
    assert (found.spec.source.uri, found.spec.replicas, found.metadata.generation) == (
        "s3://models/m.onnx",
        2,
        1,
    )
    assert found.metadata.uid
    assert found.status == ModelStatus()


async def test_a_change_of_the_spec_makes_the_next_generation_of_the_same_object(rig: Rig) -> None:
    await rig.put(model())
    before = await rig.until(key(), present)
    await rig.put(model(replicas=3))
    after = await rig.until(key(), lambda o: isinstance(o, Model) and o.spec.replicas == 3)
    assert before is not None
    assert after is not None
    assert (after.metadata.generation, after.metadata.uid) == (2, before.metadata.uid)


async def test_a_status_is_read_as_it_was_written_and_leaves_the_generation_alone(rig: Rig) -> None:
    await rig.put(model())
    await rig.until(key(), present)
    await rig.store.update_status(key(), STATUS)
    found = await rig.until(key(), lambda o: isinstance(o, Model) and o.status != ModelStatus())
    assert isinstance(found, Model)
    assert (found.status, found.metadata.generation) == (STATUS, 1)


async def test_writing_the_status_that_is_there_writes_nothing(rig: Rig) -> None:
    await rig.put(model())
    await rig.until(key(), present)
    await rig.store.update_status(key(), STATUS)
    before = await rig.until(key(), lambda o: isinstance(o, Model) and o.status == STATUS)
    await rig.store.update_status(key(), STATUS)
    assert await rig.store.get(key()) == before


async def test_the_status_survives_a_change_of_the_spec(rig: Rig) -> None:
    await rig.put(model())
    await rig.until(key(), present)
    await rig.store.update_status(key(), STATUS)
    await rig.put(model(replicas=2))
    found = await rig.until(key(), lambda o: isinstance(o, Model) and o.spec.replicas == 2)
    assert isinstance(found, Model)
    assert found.status == STATUS


async def test_a_status_of_an_object_that_is_gone_is_dropped(rig: Rig) -> None:
    await rig.store.update_status(key(), STATUS)
    assert await rig.store.get(key()) is None


async def test_objects_are_listed_by_namespace_and_in_all(rig: Rig) -> None:
    for name, namespace in (("one", "a"), ("two", "a"), ("three", "b")):
        await rig.put(model(name, namespace))
        await rig.until(key(name, namespace), present)
    in_a = {o.metadata.name for o in await rig.store.list("Model", "a")}
    everywhere = {o.metadata.name for o in await rig.store.list("Model")}
    assert (in_a, everywhere) == ({"one", "two"}, {"one", "two", "three"})
    assert await rig.store.list("Endpoint") == []


async def test_a_deleted_object_is_gone(rig: Rig) -> None:
    await rig.put(model())
    await rig.until(key(), present)
    await rig.remove(key())
    assert await rig.until(key(), lambda found: found is None) is None


async def test_a_stored_object_that_does_not_parse_is_named_by_get_and_left_out_of_lists(rig: Rig) -> None:
    await rig.put(model("sound"))
    await rig.put(model("spoilt"))
    await rig.spoil(key("spoilt"))
    with pytest.raises(InvalidObject, match=r"Model 'spoilt': spec.source: required, but not given"):
        await rig.store.get(key("spoilt"))
    assert [o.metadata.name for o in await rig.store.list("Model")] == ["sound"]
