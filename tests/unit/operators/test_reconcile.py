from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib

import pytest

from operators.api.endpoint import Endpoint
from operators.api.errors import Conflict, OperatorError
from operators.api.model import Model
from operators.api.plan import Event, Key, Observation, Plan
from operators.api.status import EndpointStatus, ModelStatus, RolloutStatus
from operators.reconcile import CONFLICT_RETRY_S, Reconciler, Tell, affected
from operators.store.sqlite import SqliteStore
from tests.unit.operators.planning.world import RUNTIMES, World
from tests.unit.operators.planning.world import model as asked

AT = "2026-01-01T00:00:00Z"
KEY = Key("Model", "default", "digits")


@dataclasses.dataclass
class Still:
    """Shows what a planner's world shows, and does nothing, or not even that."""

    world: World
    error: str = ""

    async def observe(self, key: Key) -> Observation:
        return self.world.observation()

    async def act(self, key: Key, plan: Plan) -> None:
        if self.error:
            raise OperatorError(self.error)


async def deciding(
    folder: pathlib.Path, tell: Tell, error: str = "", *, is_stale: bool = False
) -> tuple[Reconciler, SqliteStore]:
    """About to begin a rollout of the digits; ``is_stale``: of a version that somebody changes meanwhile."""
    rollout = {"steps": [{"weight": 10}]}
    world = World(asked("a", rollout=rollout))
    world.settle()
    store = (Changed if is_stale else SqliteStore).open(folder / "objects.db", lambda: world.now, lambda key: None)
    world.edit(asked("b", rollout=rollout))
    await store.apply(world.model)
    await SqliteStore.update_status(store, KEY, world.model.status)
    return Reconciler(store, Still(world, error), lambda: world.now, RUNTIMES, tell), store


class Changed(SqliteStore):
    """Somebody is always faster."""

    async def update_status(self, key: Key, status: ModelStatus | EndpointStatus) -> None:
        raise Conflict(f"{key} changed")


@pytest.mark.parametrize("error", ["", "a quota refuses it"])
async def test_what_is_decided_is_told_with_its_status_also_where_it_could_not_be_done(
    tmp_path: pathlib.Path, error: str
) -> None:
    told: list[tuple[Key, str, str]] = []

    def tell(key: Key, event: Event, status: ModelStatus | EndpointStatus) -> None:
        assert isinstance(status, ModelStatus)
        assert status.rollout is not None
        told.append((key, event.reason, status.rollout.state))

    reconciler, store = await deciding(tmp_path, tell, error)
    with pytest.raises(OperatorError, match=error) if error else contextlib.nullcontext():
        await reconciler.reconcile(KEY)
    assert told == [(KEY, "RolloutBegun", "Progressing")]
    with pytest.raises(OperatorError, match=error) if error else contextlib.nullcontext():
        await reconciler.reconcile(KEY)
    assert len(told) == 1
    store.close()


async def test_a_decision_about_what_changed_meanwhile_is_not_told(tmp_path: pathlib.Path) -> None:
    told: list[str] = []
    reconciler, store = await deciding(tmp_path, lambda key, event, status: told.append(event.name), is_stale=True)
    assert await reconciler.reconcile(KEY) == CONFLICT_RETRY_S
    assert told == []
    store.close()


def model(name: str) -> Model:
    return Model.model_validate({"metadata": {"name": name}, "spec": {"source": {"uri": "s3://models/m.onnx"}}})


async def test_a_model_that_waits_for_another_ones_rollout_is_looked_at_when_that_one_changes(
    tmp_path: pathlib.Path,
) -> None:
    clock = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    store = SqliteStore.open(tmp_path / "objects.db", lambda: clock, lambda key: None)
    for name in ("a", "b", "c"):
        await store.apply(model(name))
    arms = [{"name": name, "model": name, "weight": weight} for name, weight in (("a", 50), ("b", 50))]
    await store.apply(Endpoint.model_validate({"metadata": {"name": "reader"}, "spec": {"arms": arms}}))
    keys = [Key("Model", "default", "a"), Key("Endpoint", "default", "reader")]
    assert await affected(keys[0], store) == keys
    rollout = RolloutStatus(revision="5e6f", stable="1a2b", began=AT, state="Waiting", since=AT, message="it waits")
    await store.update_status(Key("Model", "default", "b"), ModelStatus(rollout=rollout))
    assert await affected(keys[0], store) == [*keys, Key("Model", "default", "b")]
    store.close()
