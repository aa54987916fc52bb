"""Workers that bring one key after another in line, for as long as they are let.

A failed reconcile is logged, and its key comes back after a backoff of its own; nothing a reconcile raises
ends a worker. Each reconcile leaves one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from operators.runtime.queue import Queue

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Controller(Generic[K]):
    """``workers`` at once work off ``queue`` by ``reconcile``.

    ``reconcile`` gives the seconds after which to look at the key again, or None for when it is added again.
    """

    def __init__(
        self,
        queue: Queue[K],
        reconcile: Callable[[K], Awaitable[float | None]],
        workers: int,
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._reconcile = reconcile
        self._workers = workers
        self._clock = clock
        self._since: dict[K, float] = {}

    async def run(self) -> None:
        """Work until cancelled; a reconcile under way is cancelled too."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    def longest(self) -> tuple[K, float] | None:
        """The key that has been worked on for longest, and for how many seconds."""
        if not self._since:
            return None
        key = min(self._since, key=self._since.__getitem__)
        return key, self._clock() - self._since[key]

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            began = self._since[key] = self._clock()
            try:
                look_again_s = await self._reconcile(key)
            except Exception as error:
                retry_s = self._queue.retry(key)
                # A traceback is for what nobody foresaw; a failure with a message of its own needs none.
                log.warning(
                    "reconcile key=%r outcome=failed duration_s=%.3f retry_s=%.1f error=%r",
                    str(key),
                    self._clock() - began,
                    retry_s,
                    str(error) or repr(error),
                    exc_info=isinstance(error, (TypeError, AttributeError, LookupError, AssertionError)),
                )
            else:
                self._queue.forget(key)
                if look_again_s is not None:
                    self._queue.add_after(key, look_again_s)
                log.info(
                    "reconcile key=%r outcome=done duration_s=%.3f look_again_s=%s",
                    str(key),
                    self._clock() - began,
                    look_again_s,
                )
            finally:
                del self._since[key]
                self._queue.done(key)
