from __future__ import annotations

import datetime
import pathlib

from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.plan import Key
from operators.api.status import ModelStatus, RolloutStatus
from operators.reconcile import affected
from operators.store.sqlite import SqliteStore

AT = "2026-01-01T00:00:00Z"


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
