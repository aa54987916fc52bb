"""A rollout by steps under steady load over both protocols: no request fails, whether it is promoted or taken back."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import yaml

from tests.rig import rollouts
from tests.rig.load import FIRST, NEXT, Load
from tests.rig.local_mode import Local
from tests.rig.waiting import until

RATE = 200


def write(folder: pathlib.Path, revision: pathlib.Path, steps: list[dict[str, Any]]) -> str:
    """The file of the digits as ``revision`` has them, moving by ``steps``."""
    model = yaml.safe_load(revision.read_text())
    model["spec"]["source"]["uri"] = str(revision.parent / "model.onnx")
    model["spec"]["rollout"] = {"steps": steps}
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    return str(file)


async def run(local: Local, *words: str) -> tuple[int, str]:
    code, said, error = await asyncio.to_thread(local, *words)
    return code, said + error


async def serve(local: Local, file: str) -> tuple[Load, asyncio.Task[None], asyncio.Event]:
    """The first revision serves under load."""
    await asyncio.to_thread(local.up, file)
    await asyncio.to_thread(local.serving, "digits")
    ended = asyncio.Event()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", RATE)
    return load, asyncio.create_task(load.run(ended.is_set)), ended


async def has_share(local: Local, weight: int) -> None:
    async def reached() -> bool:
        model = await asyncio.to_thread(local.model, "digits")
        rollout = model["status"].get("rollout") or {}
        return bool((rollout.get("observed"), rollout.get("reached")) == (weight, True))

    await until(f"the router reports {weight} of 10,000 for the next revision", reached)


async def test_a_good_revision_is_promoted_step_by_step_and_no_request_fails(
    local: Local, tmp_path: pathlib.Path
) -> None:
    steps = [{"weight": 10, "for": "2s"}, {"weight": 50, "for": "2s"}]
    load, running, ended = await serve(local, write(tmp_path, FIRST, steps))
    assert await run(local, "apply", "-f", write(tmp_path, NEXT, steps)) == (0, "models/digits configured\n")
    code, said = await run(local, "rollout", "status", "digits", "--watch")
    assert code == 0, said
    assert said.splitlines()[-1].endswith("stood all steps (2) and is promoted: all traffic moves to it")
    await asyncio.to_thread(local.serving, "digits")
    ended.set()
    await running
    assert load.failures == []
    assert load.answers["next"] > 0
    log = (local.data / "up.log").read_text()
    assert "step 1 of 2 is over; its share is to be 50 %" in log
    assert "stood all steps (2) and is promoted" in log
    rollout = (await asyncio.to_thread(local.model, "digits"))["status"]["rollout"]
    file = tmp_path / "report.html"
    assert await run(local, "rollout", "report", "digits", "-o", str(file)) == (0, f"{file}\n")
    assert f"Rollout of digits: revision {rollout['revision']}, promoted" in file.read_text()
    asked = [point["asked"] for point in rollout["trail"]]
    assert list(dict.fromkeys(asked)) == [0, 1000, 5000, 10_000]


async def test_a_rollout_goes_on_where_it_was_after_its_operator_was_killed_and_no_request_fails(
    local: Local, tmp_path: pathlib.Path
) -> None:
    steps = [{"weight": 25, "for": "3s"}, {"weight": 75, "for": "3s"}]
    load, running, ended = await serve(local, write(tmp_path, FIRST, steps))
    assert (await run(local, "apply", "-f", write(tmp_path, NEXT, steps)))[0] == 0
    await has_share(local, 2500)
    before = (await asyncio.to_thread(local.model, "digits"))["status"]["rollout"]
    process = local.processes[-1]
    process.kill()
    process.wait()
    await asyncio.to_thread(local.up)
    code, said = await run(local, "rollout", "status", "digits", "--watch")
    assert code == 0, said
    after = (await asyncio.to_thread(local.model, "digits"))["status"]["rollout"]
    assert (after["state"], after["began"]) == ("Promoted", before["began"])
    await asyncio.to_thread(local.serving, "digits")
    ended.set()
    await running
    assert load.failures == []


async def test_a_revision_that_a_person_takes_back_has_no_traffic_left_until_it_is_tried_again_and_promoted(
    local: Local, tmp_path: pathlib.Path
) -> None:
    steps = [{"weight": 25, "for": "1h"}]
    load, running, ended = await serve(local, write(tmp_path, FIRST, steps))
    assert (await run(local, "rollout", "abort", "digits"))[0] == 1, "there is nothing to abort"
    assert (await run(local, "apply", "-f", write(tmp_path, NEXT, steps)))[0] == 0
    await has_share(local, 2500)
    code, said = await run(local, "rollout", "pause", "digits")
    assert (code, said) == (0, "rollout of model digits paused\n")
    code, said = await run(local, "rollout", "status", "digits")
    assert (code, "25 % for 1h" in said) == (0, True), said
    assert await run(local, "rollout", "resume", "digits") == (0, "rollout of model digits goes on\n")
    assert await run(local, "rollout", "abort", "digits") == (0, "rollout of model digits is to be rolled back\n")
    code, said = await run(local, "rollout", "status", "digits", "--watch")
    assert code == 1, said
    assert said.splitlines()[-1].endswith("with 25 % of the traffic: it was aborted by hand")

    async def is_rid_of_it() -> bool:
        model = await asyncio.to_thread(local.model, "digits")
        states = {r["state"]: r["weight"] for r in model["status"]["revisions"]}
        return states == {"Serving": 10_000, "RolledBack": 0} and len(local.servers("digits")) == 1

    await until("its traffic and its servers are gone", is_rid_of_it)
    before = load.answers["next"]
    assert before > 0
    sent = load.sent

    async def went_on() -> bool:
        return load.sent > sent + RATE

    await until("more requests were sent", went_on)
    assert load.answers["next"] == before
    assert await run(local, "rollout", "retry", "digits") == (0, "rollout of model digits is to be tried again\n")
    await has_share(local, 2500)
    assert await run(local, "rollout", "promote", "digits") == (0, "rollout of model digits is to be promoted\n")
    code, said = await run(local, "rollout", "status", "digits", "--watch")
    assert code == 0, said
    assert said.splitlines()[-1].endswith("is promoted by hand: all traffic moves to it")
    await asyncio.to_thread(local.serving, "digits")
    ended.set()
    await running
    assert load.failures == []


async def test_a_good_revision_is_promoted_by_the_evidence(local: Local, tmp_path: pathlib.Path) -> None:
    played = await rollouts.play(await asyncio.to_thread(rollouts.Laptop, local, tmp_path), rollouts.GOOD)
    rollouts.holds(played, "Promoted", "not worse than allowed: 0 % of ")


async def test_a_revision_that_fails_a_twentieth_is_rolled_back_by_the_evidence(
    local: Local, tmp_path: pathlib.Path
) -> None:
    played = await rollouts.play(await asyncio.to_thread(rollouts.Laptop, local, tmp_path), rollouts.FAILS)
    rollouts.holds(played, "RolledBack", "requests failed, of the stable revision 0 %")
