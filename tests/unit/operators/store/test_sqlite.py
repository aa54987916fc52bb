"""What the SQLite store does beyond the contract: applying, deleting, and saying what is wrong with its file."""

from __future__ import annotations

import datetime
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from operators.api.base import APIObject
from operators.api.errors import Conflict, NotFound, Unreachable
from operators.api.kinds import parse
from operators.api.plan import Key
from operators.api.status import ModelStatus
from operators.store.sqlite import Outcome, SqliteStore

DIGITS = Key("Model", "default", "digits")


def clock() -> datetime.datetime:
    return datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.fixture
def changes() -> list[Key]:
    return []


@pytest.fixture
def store(tmp_path: pathlib.Path, changes: list[Key]) -> Iterator[SqliteStore]:
    made = SqliteStore.open(tmp_path / "objects.db", clock, changes.append)
    yield made
    made.close()


def model(**metadata: Any) -> APIObject:
    spec = {"source": {"uri": "s3://models/m.onnx"}, "replicas": metadata.pop("replicas", 1)}
    return parse(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": "digits"} | metadata,
            "spec": spec,
        }
    )


def runtime(**metadata: Any) -> APIObject:
    return parse(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "triton"} | metadata,
            "spec": {"image": "triton:1", "formats": ["onnx"]},
        }
    )


async def test_applying_says_what_it_did_and_counts_generation_and_resource_version(
    store: SqliteStore,
) -> None:
    steps = [model(), model(), model(labels={"team": "a"}), model(labels={"team": "a"}, replicas=2)]
    seen = []
    for step in steps:
        outcome, now = await store.apply(step)
        seen.append((outcome, now.metadata.generation, now.metadata.resource_version))
    assert seen == [
        (Outcome.CREATED, 1, "1"),
        (Outcome.UNCHANGED, 1, "1"),
        (Outcome.CONFIGURED, 1, "2"),
        (Outcome.CONFIGURED, 2, "3"),
    ]


async def test_a_new_object_has_its_metadata_and_an_empty_status(store: SqliteStore) -> None:
    _, now = await store.apply(model(labels={"team": "a"}, annotations={"note": "b"}))
    found = now.metadata.model_copy(update={"uid": "-"}).to_dict()
    assert found == {
        "name": "digits",
        "namespace": "default",
        "uid": "-",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
    }


async def test_a_stale_resource_version_is_a_conflict_and_changes_nothing(store: SqliteStore) -> None:
    await store.apply(model())
    await store.apply(model(replicas=2))
    with pytest.raises(Conflict, match="Model default/digits has resourceVersion 2, not 1: read it again"):
        await store.apply(model(replicas=3, resourceVersion="1"))
    outcome, now = await store.apply(model(replicas=3, resourceVersion="2"))
    assert (outcome, now.metadata.generation) == (Outcome.CONFIGURED, 3)


async def test_a_resource_version_of_an_object_that_is_gone_is_a_conflict(store: SqliteStore) -> None:
    with pytest.raises(Conflict, match="has resourceVersion none: it does not exist, not 7"):
        await store.apply(model(resourceVersion="7"))


async def test_every_write_is_told_and_nothing_else(store: SqliteStore, changes: list[Key]) -> None:
    await store.apply(model())
    await store.apply(model())
    await store.update_status(DIGITS, ModelStatus(url="http://x"))
    await store.update_status(DIGITS, ModelStatus(url="http://x"))
    await store.delete(DIGITS)
    assert changes == [DIGITS, DIGITS, DIGITS]


async def test_deleting_what_does_not_exist_says_so(store: SqliteStore) -> None:
    with pytest.raises(NotFound, match="Model default/digits does not exist"):
        await store.delete(DIGITS)


async def test_a_runtime_belongs_to_no_namespace(store: SqliteStore) -> None:
    await store.apply(runtime(namespace="left"))
    outcome, _ = await store.apply(runtime(namespace="right"))
    assert (outcome, store.keys()) == (Outcome.UNCHANGED, [Key("ServingRuntime", "", "triton")])
    assert await store.get(Key("ServingRuntime", "anywhere", "triton")) is not None
    assert [o.metadata.name for o in await store.list("ServingRuntime", "anywhere")] == ["triton"]


async def test_objects_are_there_after_closing_and_opening(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "objects.db"
    first = SqliteStore.open(path, clock, lambda key: None)
    await first.apply(model(replicas=2))
    await first.update_status(DIGITS, ModelStatus(url="http://x"))
    before = await first.get(DIGITS)
    first.close()
    second = SqliteStore.open(path, clock, lambda key: None)
    assert await second.get(DIGITS) == before
    second.close()


async def test_a_full_disk_is_named_and_what_was_stored_stays(store: SqliteStore) -> None:
    await store.apply(model())
    store.database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Unreachable, match=f"{re.escape(str(store.path))}: the disk is full; free some space"):
        await store.apply(model(annotations={"large": "x" * 100_000}))
    store.database.execute("PRAGMA max_page_count = 1000000")
    outcome, _ = await store.apply(model())
    assert outcome is Outcome.UNCHANGED


def _garbage(path: pathlib.Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def _folder(path: pathlib.Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_garbage, "it is damaged; move it away and apply your objects again"),
        (
            _folder,
            "unable to open database file; check that it can be written and that no other process uses it",
        ),
    ],
)
def test_a_file_that_is_no_database_is_named(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None], problem: str
) -> None:
    path = tmp_path / "objects.db"
    spoil(path)
    with pytest.raises(Unreachable) as raised:
        SqliteStore.open(path, clock, lambda key: None)
    assert str(raised.value) == f"{path}: {problem}"
