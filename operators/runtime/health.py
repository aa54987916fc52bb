"""Whether the operator sees and works, over HTTP: /healthz for restarting it, /readyz for counting on it, /metrics.

A check gives what is wrong in one sentence, or None. 200 means that no check complains; otherwise 500 lists
the complaints, one a line. A blind cache is red even though every task is alive: that is the failure that a
count of tasks does not see.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from aiohttp import web

from operators.runtime.cache import Cache
from operators.runtime.controller import Controller

Check = Callable[[], str | None]

K = TypeVar("K", bound=Hashable)

BLIND_S = 60
STUCK_S = 600


def sees(cache: Cache, clock: Callable[[], float], blind_s: float = BLIND_S) -> Check:
    """Complains when ``cache`` has had no contact for more than ``blind_s``, or has not begun within it."""

    def check() -> str | None:
        silent_s = clock() - cache.contact
        if silent_s <= blind_s:
            return None
        since = "no contact" if cache.synced else "not complete since the start"
        return f"cache of {cache}: {since} for {silent_s:.0f} s: {cache.trouble or 'the watch is silent'}"

    return check


def synced(cache: Cache) -> Check:
    """Complains until ``cache`` has been complete once."""
    return lambda: None if cache.synced else f"cache of {cache}: not complete yet: {cache.trouble or 'listing'}"


def works(controller: Controller[K], stuck_s: float = STUCK_S) -> Check:
    """Complains when a worker has been at one key for more than ``stuck_s``."""

    def check() -> str | None:
        longest = controller.longest()
        if longest is None or longest[1] <= stuck_s:
            return None
        return f"reconcile of {longest[0]}: not done after {longest[1]:.0f} s"

    return check


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, live: Sequence[Check], ready: Sequence[Check], metrics: Callable[[], str] = lambda: ""
) -> AsyncIterator[int]:
    """Answer on ``port`` (0: any free one) while the context lasts; gives the port. Ready includes live."""

    async def measured(_: web.Request) -> web.Response:
        return web.Response(text=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def answering(checks: Sequence[Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            complaints = [complaint for check in checks if (complaint := check())]
            return web.Response(status=500 if complaints else 200, text="\n".join(complaints or ["ok"]) + "\n")

        return answer

    application = web.Application()
    application.router.add_get("/metrics", measured)
    for path, checks in (("/healthz", [*live]), ("/readyz", [*live, *ready])):
        application.router.add_get(path, answering(checks))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
