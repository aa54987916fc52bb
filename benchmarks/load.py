"""Load: open-loop, where each request leaves at its moment whether or not earlier ones came back, and closed-loop,
where each worker sends as soon as it has its answer.

Open-loop latency counts from the scheduled moment, so what a stalled server does to its queue is seen.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

_SPIN_S = 0.002
"""Timers of an event loop are kept to a millisecond; what is nearer is waited for by asking the clock."""


@dataclass(frozen=True)
class Sample:
    """One request: when it was due, how long after that its answer was complete, and what went wrong."""

    due_s: float
    latency_s: float
    error: str
    """Empty for a good answer."""
    late_s: float = 0.0
    """How long after it was due it left: what the client could not keep up with."""


async def drive(
    send: Callable[[], Awaitable[str]], arrivals: Sequence[float], clock: Callable[[], float]
) -> tuple[Sample, ...]:
    """Call ``send`` at each of ``arrivals``, which are in order; it returns what went wrong, or an empty string."""
    requests = []
    gc.freeze()  # what is there already need not be looked at while time is measured
    start = clock()

    async def one(due_s: float) -> Sample:
        late_s = clock() - start - due_s
        error = await send()
        return Sample(due_s, clock() - start - due_s, error, late_s)

    for due_s in arrivals:
        wait_s = start + due_s - clock()
        while True:
            await asyncio.sleep(max(0.0, wait_s - _SPIN_S))
            wait_s = start + due_s - clock()
            if wait_s <= 0:
                break
        requests.append(asyncio.create_task(one(due_s)))
    return tuple(await asyncio.gather(*requests))


async def closed(
    send: Callable[[], Awaitable[str]], workers: int, duration_s: float, clock: Callable[[], float]
) -> tuple[Sample, ...]:
    """``workers`` that call ``send`` again and again; a sample's request was due when its worker was free."""
    start = clock()
    samples = []

    async def one() -> None:
        while (due_s := clock() - start) < duration_s:
            error = await send()
            samples.append(Sample(due_s, clock() - start - due_s, error))

    await asyncio.gather(*(one() for _ in range(workers)))
    return tuple(samples)


def good_rate(samples: Sequence[Sample], begin_s: float, end_s: float) -> float:
    """Good answers a second that were complete between two moments."""
    good = [s for s in samples if not s.error and begin_s <= s.due_s + s.latency_s < end_s]
    return len(good) / (end_s - begin_s)
