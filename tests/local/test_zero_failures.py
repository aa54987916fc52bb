"""Under steady load over both protocols nothing fails while revisions follow each other and operators die."""

from __future__ import annotations

import asyncio

from tests.rig.load import FIRST, NEXT, Load
from tests.rig.local_mode import Local
from tests.rig.waiting import until

REQUESTS = 10_000
RATE = 200
REPLACEMENTS = 5


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
