"""Open-loop load: each request leaves at its moment, whether or not earlier ones came back.

Latency counts from the scheduled moment, so what a stalled server does to its queue is seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, how long after that its answer was complete, and what went wrong."""

    due_s: float
    latency_s: float
    error: str
    """Empty for a good answer."""


async def drive(
    send: Callable[[], Awaitable[str]], arrivals: Sequence[float], clock: Callable[[], float]
) -> tuple[Sample, ...]:
    """Call ``send`` at each of ``arrivals``; it returns what went wrong, or an empty string."""
    start = clock()

    async def one(due_s: float) -> Sample:
        await asyncio.sleep(start + due_s - clock())
        error = await send()
        return Sample(due_s, clock() - start - due_s, error)

    return tuple(await asyncio.gather(*(one(due_s) for due_s in arrivals)))
