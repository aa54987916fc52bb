"""Users say of answers whether they were right, and that alone takes a revision back or lets it through."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import yaml

from serving.contract import REQUEST_ID_HEADER, REVISION_HEADER
from tests.rig.load import DIGITS, FIRST, NEXT
from tests.rig.local_mode import Local

BROKEN = NEXT.parent / "broken" / "model.yaml"
AT_ONCE = 4


@dataclasses.dataclass
class Users:
    """Ask for the held-out pictures, and say of each answer whether it is right."""

    port: int
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    said: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    """Statuses of what came of their feedback."""

    async def run(self) -> None:
        with np.load(DIGITS / "eval.npz", allow_pickle=False) as held_out:
            pictures, digits = np.asarray(held_out["x"], np.float32), held_out["y"]
        url = f"http://127.0.0.1:{self.port}/v2/models/digits"

        async def one(client: httpx.AsyncClient, first: int) -> None:
            for at in (n % len(digits) for n in range(first, 1_000_000, AT_ONCE)):
                x = pictures[[at]]
                item = {"name": "image", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
                answer = await client.post(f"{url}/infer", json={"inputs": [item]})
                answer.raise_for_status()
                self.answers[answer.headers[REVISION_HEADER]] += 1
                correct = bool(np.argmax(answer.json()["outputs"][0]["data"]) == digits[at])
                if given := answer.headers.get(REQUEST_ID_HEADER):
                    told = await client.post(f"{url}/feedback", json={"id": given, "correct": correct})
                    self.said[told.status_code] += 1

        async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as group:
            for first in range(AT_ONCE):
                group.create_task(one(client, first))


def write(folder: pathlib.Path, revision: pathlib.Path) -> str:
    """The file of the digits as ``revision`` has them, judged by their users."""
    model = yaml.safe_load(revision.read_text())
    model["spec"]["source"]["uri"] = str(revision.parent / "model.onnx")
    analysis = {"maxErrorRateIncrease": 0.05, "feedback": {"maxIncrease": 0.05}}
    model["spec"]["rollout"] = {"steps": [{"weight": 50, "for": "2s"}], "analysis": analysis}
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    return str(file)


@contextlib.asynccontextmanager
async def used(local: Local, file: str) -> AsyncIterator[Users]:
    """The first revision serves and has users."""
    await asyncio.to_thread(local.up, file)
    await asyncio.to_thread(local.serving, "digits")
    users = Users(local.port)
    running = asyncio.create_task(users.run())
    try:
        yield users
        assert not running.done(), "a request of theirs failed"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def roll(local: Local, file: str) -> tuple[int, str, dict[str, Any]]:
    """The exit code of the rollout to what is in ``file``, its last line, and what is kept of it."""
    assert (await asyncio.to_thread(local, "apply", "-f", file))[0] == 0
    code, said, _ = await asyncio.to_thread(local, "rollout", "status", "digits", "--watch")
    return code, said.splitlines()[-1], (await asyncio.to_thread(local.model, "digits"))["status"]["rollout"]


def tally(rollout: dict[str, Any]) -> tuple[list[int], list[int]]:
    """What users said of the stable revision and of the candidate."""
    [found] = [metric for metric in rollout["evidence"]["metrics"] if metric["name"] == "feedback"]
    return found["tallies"][0]["stable"], found["tallies"][0]["candidate"]


async def test_a_revision_that_answers_wrongly_is_rolled_back_by_what_users_say_alone(
    local: Local, tmp_path: pathlib.Path
) -> None:
    async with used(local, write(tmp_path, FIRST)) as users:
        code, said, rollout = await roll(local, write(tmp_path, BROKEN))
        assert code == 1, said
        assert "worse than the stable revision: " in said
        assert " answers with feedback were wrong, of the stable revision " in said
        (right, wrong), (judged, found) = tally(rollout)
        assert (wrong < 0.05 * right, found > 0.8 * judged) == (True, True)
        [errors] = [metric for metric in rollout["evidence"]["metrics"] if metric["name"] == "errors"]
        assert errors["tallies"][0]["candidate"][1] == 0, "none of its requests failed"
    assert len(users.answers) == 2
    assert users.said.keys() <= {200, 404}, "404: of a revision that is gone by now"
    file = tmp_path / "report.html"
    assert (await asyncio.to_thread(local, "rollout", "report", "digits", "-o", str(file)))[0] == 0
    assert "were answered wrongly, of those with feedback" in file.read_text()


async def test_a_revision_that_answers_as_well_is_promoted_with_what_users_say(
    local: Local, tmp_path: pathlib.Path
) -> None:
    async with used(local, write(tmp_path, FIRST)) as users:
        code, said, rollout = await roll(local, write(tmp_path, NEXT))
        assert code == 0, said
        assert "not worse than allowed: 0 % of " in said
        assert " answers with feedback were wrong, of the stable revision " in said
        assert tally(rollout)[1][0] > 50
    assert len(users.answers) == 2
