"""grpcio's core, driven from our event loop: calls come, messages come and go, nothing is known of what they mean.

grpcio's own asyncio server makes three tasks and five wake-ups of every call, its synchronous one needs a thread for
every call that waits. Here one thread waits for the core and hands a call over once, together with its first message;
what is answered goes out as one batch, from the event loop. That halves what a small call costs. It leans on
``grpc._cython.cygrpc``, on exactly what ``grpc._server`` uses; ``tests/contract/test_grpcio_internals.py`` pins it.

In the core a batch is a tuple of operations with a tag that comes back when all of them are done; here a tag is what is
called then, in the waiting thread.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

_log = logging.getLogger(__name__)

Options = tuple[tuple[str, int], ...]
_NO_FLAGS = 0
_INTERNAL = 13
_COMPRESSION = "grpc-internal-encoding-request"
"""Metadata by which the core is told how to compress; it never goes out."""


class Gone(Exception):
    """The call ended while something was sent or awaited: its client cancelled, died, or its time is over."""


class Call:
    """A call, from its first message on. All methods are for the event loop's thread."""

    def __init__(self, core: Core, event: Any) -> None:
        self.method: str = event.call_details.method.decode("latin-1")
        self.metadata: tuple[tuple[str, str | bytes], ...] = event.invocation_metadata or ()
        self.compression: str | None = None
        """How answers are compressed: gzip or deflate. To be set before the first."""
        self.over = False
        """The client cannot be reached any more, or has its answer."""
        self.on_gone: Callable[[], object] | None = None
        """Called when the client goes before it has its answer."""
        self._core = core
        self._call = event.call
        self._deadline: float | None = event.call_details.deadline
        self._begun = False
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._closed)
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), self._first)

    def header(self, name: str) -> str | None:
        """The first value of the metadata by this lower-case name; None without one."""
        return next((str(value) for key, value in self.metadata if key == name), None)

    def time_remaining(self) -> float | None:
        """Seconds to the client's deadline; None without one."""
        return None if self._deadline is None else max(self._deadline - time.time(), 0.0)

    def finish(self, code: int, details: str = "", message: bytes | None = None) -> None:
        """Ends the call, with its last message."""
        if self.over:
            return
        self.over = True
        status = cygrpc.SendStatusFromServerOperation((), code, details.encode(), _NO_FLAGS)
        last = (status,) if message is None else (cygrpc.SendMessageOperation(message, _NO_FLAGS), status)
        self._call.start_server_batch((*self._beginning(), *last), _done)

    async def write(self, message: bytes) -> None:
        """Sends a message; returns when the client has room for more. Gone when it went."""
        await self._batch((*self._beginning(), cygrpc.SendMessageOperation(message, _NO_FLAGS)))

    async def read(self) -> bytes | None:
        """The next message; None when the client has sent its last."""
        event = await self._batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),))
        message: bytes | None = event.batch_operations[0].message()
        return message

    def _beginning(self) -> tuple[Any, ...]:
        if self._begun:
            return ()
        self._begun = True
        metadata = self._core.metadata
        if self.compression is not None:
            metadata = (*metadata, (_COMPRESSION, self.compression))
        return (cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS),)

    async def _batch(self, operations: tuple[Any, ...]) -> Any:
        if self.over:
            raise Gone
        ended: asyncio.Future[Any] = self._core.loop.create_future()

        def done(event: Any) -> None:
            self._core.post(_settle, ended, event)

        self._call.start_server_batch(operations, done)
        event = await ended
        if not event.success:
            raise Gone
        return event

    # In the waiting thread

    def _first(self, event: Any) -> None:
        self._core.post(self._core.answer, self, event.batch_operations[0].message())

    def _closed(self, event: Any) -> None:
        if event.batch_operations[0].cancelled():
            self._core.post(Call._leave, self, None)

    def _leave(self, _: None) -> None:
        if not self.over:
            self.over = True
            if self.on_gone is not None:
                self.on_gone()


class Core:
    """A port. ``answer`` is called on the event loop for each call, with its first message, or None without one."""

    def __init__(
        self,
        options: Options,
        metadata: tuple[tuple[str, str], ...],
        answer: Callable[[Call, bytes | None], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.metadata = metadata
        """Initial metadata of every answer."""
        self.answer = answer
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(options, False)
        self._server.register_completion_queue(self._queue)
        self._posted: collections.deque[tuple[Callable[[Any, Any], None], Any, Any]] = collections.deque()
        self._is_woken = False
        self._is_started = False
        self._ended: asyncio.Future[None] = self.loop.create_future()

    def bind(self, address: str) -> int:
        """Takes a port and gives its number; RuntimeError or 0 when it cannot be had."""
        return int(self._server.add_http2_port(address.encode()))

    def start(self) -> None:
        """Begins to take calls."""
        self._is_started = True
        self._server.start()
        self._server.request_call(self._queue, self._queue, self._called)
        threading.Thread(target=self._wait, name="grpc-core", daemon=True).start()

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls and lets those in work end; after ``grace_s`` they are cancelled."""
        if not self._is_started:
            return
        self._is_started = False
        self._server.shutdown(self._queue, self._stopped)
        done, _ = await asyncio.wait((self._ended,), timeout=grace_s)
        if not done:
            self._server.cancel_all_calls()
            await self._ended
        self._server.destroy()
        self._queue.shutdown()

    def post(self, what: Callable[[Any, Any], None], first: Any, second: Any) -> None:
        """Has something called on the event loop, from the waiting thread."""
        self._posted.append((what, first, second))
        if not self._is_woken:
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._is_woken = False
        posted = self._posted
        while posted:
            what, first, second = posted.popleft()
            try:
                what(first, second)
            except Exception:
                _log.exception("a gRPC call failed")
                if isinstance(first, Call):
                    first.finish(_INTERNAL, "the server failed to answer this call; its log says why")

    # In the waiting thread

    def _wait(self) -> None:
        while True:
            event = self._queue.poll()
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            try:
                event.tag(event)
            except Exception:
                _log.exception("an event of gRPC's core was lost")
            event = None  # what it refers to must not outlive the call

    def _called(self, event: Any) -> None:
        if not event.success:
            return  # the port is being closed
        Call(self, event)
        try:
            self._server.request_call(self._queue, self._queue, self._called)
        except ValueError:
            _log.debug("the last call before the port closed")

    def _stopped(self, event: Any) -> None:
        self.post(_settle, self._ended, None)


def _done(event: Any) -> None:
    """Nobody waits for the end of a batch that ends a call."""


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
