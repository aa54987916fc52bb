"""Answers of a new revision are compared with those that clients get, before a client gets any of its own."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from serving.contract import REVISION_HEADER, SHADOW_PATH
from tests.rig.load import DIGITS, FIRST, NEXT
from tests.rig.local_mode import Local
from tests.rig.waiting import until

BROKEN = NEXT.parent / "broken" / "model.yaml"
RATE = 100.0
STEPS = [{"weight": 20, "for": "2s"}]


@dataclasses.dataclass
class Asking:
    """Asks for every held-out picture in turn, over REST, and notes which revision answered."""

    port: int
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failures: list[str] = dataclasses.field(default_factory=list)
    sent: int = 0

    name: str = "digits"

    async def run(self, is_ended: Callable[[], bool]) -> None:
        with np.load(DIGITS / "eval.npz", allow_pickle=False) as held_out:
            pictures = np.asarray(held_out["x"], np.float32)
        url = f"http://127.0.0.1:{self.port}/v2/models/{self.name}/infer"
        loop = asyncio.get_running_loop()
        began = loop.time()
        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client, asyncio.TaskGroup() as group:
            while not is_ended():
                await asyncio.sleep(max(0.0, began + self.sent / RATE - loop.time()))
                x = pictures[[self.sent % len(pictures)]]
                item = {"name": "image", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
                body = json.dumps({"id": str(self.sent), "inputs": [item]}).encode()
                group.create_task(self._ask(client, url, body))
                self.sent += 1

    async def _ask(self, client: httpx.AsyncClient, url: str, body: bytes) -> None:
        try:
            answer = await client.post(url, content=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
        else:
            self.answers[answer.headers[REVISION_HEADER]] += 1


def write(folder: pathlib.Path, revision: pathlib.Path, percent: int = 50, paused: bool = False) -> str:
    """The file of the digits as ``revision`` has them, judged by their answers."""
    model = yaml.safe_load(revision.read_text())
    model["spec"]["source"]["uri"] = str(revision.parent / "model.onnx")
    agreement = {"percent": percent, "maxDisagreement": 0.02}
    model["spec"]["rollout"] = {"steps": STEPS, "analysis": {"agreement": agreement}, "paused": paused}
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    return str(file)


async def serve(local: Local, file: str) -> tuple[Asking, asyncio.Task[None], asyncio.Event]:
    """The first revision serves and is asked."""
    await asyncio.to_thread(local.up, file)
    await asyncio.to_thread(local.serving, "digits")
    ended, asking = asyncio.Event(), Asking(local.port)
    return asking, asyncio.create_task(asking.run(ended.is_set)), ended


async def status(local: Local) -> dict[str, Any]:
    found: dict[str, Any] = (await asyncio.to_thread(local.model, "digits"))["status"]
    return found


async def shadow(local: Local, revision: str) -> dict[str, Any]:
    """What the only server of ``revision`` shows of its copies."""
    for process in local.servers("digits"):
        environment = process.environ()
        if environment["PENSTOCK_REVISION"] == revision:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"http://127.0.0.1:{environment['PENSTOCK_HTTP_PORT']}{SHADOW_PATH}")
                found: dict[str, Any] = answer.json()
                return found
    raise AssertionError(f"no server of {revision} runs")


def server(local: Local, revision: str) -> psutil.Process:
    return next(one for one in local.servers("digits") if one.environ()["PENSTOCK_REVISION"] == revision)


async def test_a_revision_that_answers_alike_is_promoted(local: Local, tmp_path: pathlib.Path) -> None:
    asking, running, ended = await serve(local, write(tmp_path, FIRST))
    first = (await status(local))["revision"]
    assert (await asyncio.to_thread(local, "apply", "-f", write(tmp_path, NEXT)))[0] == 0
    code, said, _ = await asyncio.to_thread(local, "rollout", "status", "digits", "--watch")
    assert code == 0, said
    assert "mirrored requests, 2 % are allowed" in said.splitlines()[-1]
    ended.set()
    await running
    assert asking.failures == []
    assert asking.answers.keys() == {first, (await status(local))["revision"]}


async def test_a_revision_with_wrong_weights_is_rolled_back_before_a_client_gets_an_answer_of_it(
    local: Local, tmp_path: pathlib.Path
) -> None:
    asking, running, ended = await serve(local, write(tmp_path, FIRST))
    first = (await status(local))["revision"]
    assert (await asyncio.to_thread(local, "apply", "-f", write(tmp_path, BROKEN)))[0] == 0
    code, said, _ = await asyncio.to_thread(local, "rollout", "status", "digits", "--watch")
    assert code == 1, said
    assert "with 0 % of the traffic: worse than the stable revision: its answers differ on " in said.splitlines()[-1]
    found = await shadow(local, first)
    ended.set()
    await running
    assert asking.failures == []
    assert asking.answers.keys() == {first}
    assert found["disagreed"] > found["agreed"]
    broken = (await status(local))["rollout"]["revision"]
    assert {one["revision"] for one in found["differences"]} == {broken}
    assert all(one["id"] and " on top, not " in one["difference"] for one in found["differences"])


async def test_a_revision_that_stands_still_changes_nothing_for_clients(local: Local, tmp_path: pathlib.Path) -> None:
    asking, running, ended = await serve(local, write(tmp_path, FIRST))
    first = (await status(local))["revision"]
    assert (await asyncio.to_thread(local, "apply", "-f", write(tmp_path, NEXT, 100, paused=True)))[0] == 0

    async def is_mirrored_to() -> bool:
        return bool(((await status(local)).get("rollout") or {}).get("mirroredSince"))

    await until("requests are mirrored", is_mirrored_to)
    server(local, (await status(local))["rollout"]["revision"]).send_signal(signal.SIGSTOP)

    async def are_lost() -> bool:
        found = await shadow(local, first)
        return bool(found["lost"])

    await until("copies are lost", are_lost)
    ended.set()
    await running
    assert asking.failures == []
    assert asking.answers.keys() == {first}
