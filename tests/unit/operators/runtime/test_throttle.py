from __future__ import annotations

import asyncio

from operators.runtime.throttle import Throttle
from tests.rig import loops


def departures(count: int, idle_s: float = 0) -> list[float]:
    """When ``count`` requests leave that are made at once, after ``idle_s`` of rest."""

    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        throttle = Throttle(qps=20, burst=30, clock=loop.time)
        await asyncio.sleep(idle_s)

        async def request() -> float:
            await throttle.take()
            return round(loop.time() - idle_s, 6)

        return await asyncio.gather(*(request() for _ in range(count)))

    return loops.virtual(scenario())


def test_lets_a_burst_go_at_once_and_spaces_out_the_rest() -> None:
    assert departures(33) == [0.0] * 30 + [0.05, 0.1, 0.15]


def test_keeps_to_its_rate_in_the_long_run() -> None:
    assert departures(130)[-1] == 5.0


def test_saves_up_no_more_than_a_burst() -> None:
    assert departures(31, idle_s=3600) == [0.0] * 30 + [0.05]
