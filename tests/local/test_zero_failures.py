"""Under steady load over both protocols nothing fails while revisions follow each other and operators die."""

from __future__ import annotations

import asyncio
import pathlib

import yaml

from tests.rig.load import FIRST, NEXT, Load
from tests.rig.local_mode import Local
from tests.rig.waiting import until

REQUESTS = 10_000
RATE = 200
REPLACEMENTS = 5


KILLS = 8


async def test_no_request_fails_while_one_of_two_replicas_is_killed_again_and_again(
    local: Local, tmp_path: pathlib.Path
) -> None:
    spec = yaml.safe_load(FIRST.read_text())
    spec["spec"]["replicas"] = 2
    spec["spec"]["source"]["uri"] = str(FIRST.parent / "model.onnx")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(spec))
    local.up(str(tmp_path / "model.yaml"))
    await asyncio.to_thread(local.serving, "digits")
    ended = False
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", RATE)
    running = asyncio.create_task(load.run(lambda: ended))

    async def both_answer(sent: int) -> bool:
        """And so many more requests have been sent since."""
        model = await asyncio.to_thread(local.model, "digits")
        return model["status"]["readyReplicas"] == 2 and load.sent >= sent

    for number in range(KILLS):
        sent = load.sent + RATE
        await until("both replicas answer", lambda: both_answer(sent))  # noqa: B023
        servers = sorted(await asyncio.to_thread(local.servers, "digits"), key=lambda server: server.pid)
        assert len(servers) == 2
        servers[number % 2].kill()
        await asyncio.to_thread(servers[number % 2].wait, 10)
    sent = load.sent + RATE
    await until("both replicas answer", lambda: both_answer(sent))
    ended = True
    await running
    assert load.failures == []
    assert load.answers["first"] == load.sent >= KILLS * RATE


async def test_no_request_fails_while_revisions_are_replaced_and_operators_killed(local: Local) -> None:
    def revision() -> str:
        return local.serving("digits")

    process = local.up(str(FIRST))
    serving = [await asyncio.to_thread(revision)]
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", RATE)
    running = asyncio.create_task(load.run(lambda: load.sent == REQUESTS))

    async def sent(share: float) -> None:
        async def has() -> bool:
            return load.sent >= share * REQUESTS

        await until(f"{share:.0%} of the requests are on their way", has, REQUESTS / RATE + 60)

    for number in range(REPLACEMENTS):
        await sent((number + 1) / (REPLACEMENTS + 2))
        wanted = NEXT if number % 2 == 0 else FIRST
        code, _, error = await asyncio.to_thread(local, "apply", "-f", str(wanted))
        assert code == 0, error
        if number == 2:
            # In the middle of a replacement, and while nobody is there to continue it.
            process.kill()
            process.wait()
            process = await asyncio.to_thread(local.up)
        serving.append(await asyncio.to_thread(revision))
    process.kill()
    process.wait()
    process = await asyncio.to_thread(local.up)
    await running

    assert load.failures == []
    assert sum(load.answers.values()) == REQUESTS
    first, following = serving[0], serving[1]
    assert serving == [first, following, first, following, first, following]
    assert min(load.answers.values()) > REQUESTS // 10, "both revisions had their share"
