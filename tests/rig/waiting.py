"""Waiting on a condition with a deadline, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 60.0


async def until(what: str, holds: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    """Return once ``holds`` does; AssertionError naming ``what`` after the deadline."""
    try:
        async with asyncio.timeout(deadline_s):
            while not await holds():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not so after {deadline_s:g} s") from None
