"""A request that is answered with several responses: computed on a thread of its own, taken on the event loop.

The thread is ahead of the client by at most ``AHEAD`` responses, then it waits: a client that reads slowly holds
back its own stream and costs no memory. It ends when the job is cancelled or its time is over, at the engine's next
response or within ``_LOOK_S`` where it waits for the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Self

from serving.engines.base import Interrupt
from serving.errors import ServingError
from serving.requests import Response
from serving.scheduling.job import Job

AHEAD = 4
_LOOK_S = 0.05

Responses = Generator[Response, None, None]


class Stream:
    """The responses to one request, in order, with ``async for``; it raises the error that ended them early."""

    def __init__(
        self,
        job: Job,
        responses: Responses,
        explained: Callable[[Job, Exception], ServingError],
        ended: Callable[[Job], None],
    ) -> None:
        """Begins at once. ``explained`` turns whatever went wrong into what the client is told (on the thread),
        ``ended`` is called on the event loop when the thread has ended.
        """
        self.job = job
        self._interrupt = job.interrupt = Interrupt()
        self._responses = responses
        self._explained = explained
        self._ended = ended
        self._items: deque[Response] = deque()
        self._over = False
        self._error: ServingError | None = None
        self._room = threading.Semaphore(AHEAD)
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, name="stream", daemon=True).start()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Response:
        """The next response; StopAsyncIteration when the engine has given all of them."""
        while not self._items:
            if self._over:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        self._room.release()
        return self._items.popleft()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.job.cancel()

    # On the thread

    def _work(self) -> None:
        error = None
        job = self.job
        job.begun = job.ended = time.perf_counter()
        try:
            with contextlib.closing(self._responses):
                while self._has_room():
                    begun = time.perf_counter()
                    response = next(self._responses, None)
                    job.ended += time.perf_counter() - begun  # the engine's time alone, not the client's
                    if response is None:
                        break
                    self._tell(self._arrived, response)
        except Exception as failed:
            error = self._explained(job, failed)
        self._tell(self._finished, error)

    def _has_room(self) -> bool:
        while not self._room.acquire(timeout=_LOOK_S) and not self._interrupt.fired:
            pass  # the client has yet to take what there is
        if self._interrupt.fired:
            raise ServingError("interrupted between two responses")
        return True

    def _tell(self, what: Callable[[Any], None], value: Response | ServingError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(what, value)

    # On the event loop

    def _arrived(self, response: Response) -> None:
        self._items.append(response)
        self._news.set()

    def _finished(self, error: ServingError | None) -> None:
        self._over, self._error = True, error
        self._news.set()
        self._ended(self.job)
