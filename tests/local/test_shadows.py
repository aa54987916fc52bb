"""Copies of an Endpoint's requests for other Models: one that answers alike, one that does not, one that hangs, and one
that is not there. Clients get the answers of the Endpoint's own Model, whatever comes of them.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
from typing import Any

import httpx
import yaml

from operators.cli import datadir, kinds
from operators.cli.client import LocalClient
from serving.contract import SHADOW_PATH
from tests.local.test_agreement import BROKEN, Asking
from tests.rig.load import FIRST
from tests.rig.local_mode import Local
from tests.rig.waiting import until


def model(name: str, revision: pathlib.Path) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(revision.read_text())
    made["metadata"]["name"] = name
    made["spec"]["source"]["uri"] = str(revision.parent / "model.onnx")
    return made


def endpoint(*shadows: str) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Endpoint",
        "metadata": {"name": "reader"},
        "spec": {
            "arms": [{"name": "control", "model": "digits", "weight": 100}],
            "shadow": [{"model": name} for name in shadows],
        },
    }


def status(local: Local) -> dict[str, dict[str, Any]]:
    running = datadir.running(local.data)
    assert running is not None
    found = LocalClient(running).get(kinds.of("Endpoint"), "default", "reader").get("status", {})
    return {shadow["model"]: shadow for shadow in found.get("shadows", ())}


async def debug(local: Local) -> dict[str, Any]:
    """What the server of ``digits`` shows of its copies."""
    (process,) = local.servers("digits")
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{process.environ()['PENSTOCK_HTTP_PORT']}{SHADOW_PATH}")
        found: dict[str, Any] = answer.json()
        return found


async def test_shadows_are_compared_and_one_that_hangs_or_is_not_there_costs_nobody_anything(
    local: Local, tmp_path: pathlib.Path
) -> None:
    made = [model("digits", FIRST), model("same", FIRST), model("broken", BROKEN), model("hangs", FIRST)]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all([*made, endpoint("same", "broken", "hangs", "missing")]))
    await asyncio.to_thread(local.up, str(file))
    for each in made:
        await asyncio.to_thread(local.serving, each["metadata"]["name"])

    async def are_named() -> bool:
        return [name for name, found in status(local).items() if not found.get("message")] == [
            "same",
            "broken",
            "hangs",
        ]

    await until("three get copies", are_named)
    (hanging,) = local.servers("hangs")
    hanging.send_signal(signal.SIGSTOP)
    ended, asking = asyncio.Event(), Asking(local.port, name="reader")
    running = asyncio.create_task(asking.run(ended.is_set))

    async def are_compared() -> bool:
        found = status(local)
        return all(found[name]["compared"] >= 50 for name in ("same", "broken"))

    await until("copies are compared", are_compared)
    ended.set()
    await running
    assert asking.failures == []
    assert asking.answers.keys() == {(await asyncio.to_thread(local.model, "digits"))["status"]["revision"]}
    told = status(local)
    assert told["same"]["agreed"] == told["same"]["compared"] <= told["same"]["copied"]
    assert told["broken"]["agreed"] < told["broken"]["compared"] / 2
    assert (told["hangs"]["compared"], told["hangs"]["agreed"]) == (0, 0)
    assert (told["missing"]["copied"], told["missing"]["message"]) == (0, "model missing does not exist")
    found = await debug(local)
    assert {one["shadow"] for one in found["differences"]} == {"broken"}
    assert all(one["id"] for one in found["differences"])
    code, said, _ = await asyncio.to_thread(local, "describe", "endpoint", "reader")
    assert code == 0
    assert "model missing does not exist" in said
    code, said, _ = await asyncio.to_thread(local, "get", "endpoint", "reader", "-o", "wide")
    assert f"same={told['same']['agreed']}/" in said
    conditions = json.loads((await asyncio.to_thread(local, "get", "endpoint", "reader", "-o", "json"))[1])["status"]
    found = {c["type"]: c for c in conditions["conditions"]}
    assert (found["Ready"]["reason"], found["Accepted"]["reason"]) == ("Serving", "PartlyActedOn")
    assert "spec.shadow (model missing does not exist)" in found["Accepted"]["message"]
    hanging.send_signal(signal.SIGCONT)
