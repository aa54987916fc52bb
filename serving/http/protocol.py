"""uvicorn's httptools protocol, with a short way for the requests that matter.

uvicorn parses, keeps flow control and runs the ASGI application for everything ``routes`` does not
know. Requests it does know become an ``Exchange`` and never meet an ASGI scope, task or event. Both
kinds share one order: on a connection one request is in work, the others wait in ``pipeline``.

This leans on uvicorn's internals; ``tests/contract/test_uvicorn_internals.py`` pins what is used:
``cycle``, ``pipeline``, ``flow``, ``scope``, ``headers``, ``url``, ``on_*``, ``_start_asgi_task``.

The time limits that uvicorn lacks are kept by a sweep over all connections once a second, so a request
costs no timer: headers must come within ``header_s``, a body at ``body_bytes_per_s``, an idle or a
stalled connection is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.http.exchange import Exchange
from serving.http.plane import DataPlane
from serving.http.routes import Kind, Route

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_LINGER_S = 5.0


Turn = Exchange | RequestResponseCycle


class InferenceProtocol(HttpToolsProtocol):
    """One connection."""

    pipeline: deque[tuple[Turn, Any]]  # type: ignore[assignment]

    def __init__(self, config: Config, state: ServerState, plane: DataPlane, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(config, state, {}, loop)
        self.plane = plane
        self._active: Turn | None = None
        self._incoming: Exchange | None = None
        self._receiving_since: float | None = None
        self._begun = False
        self._headers_done = False
        self._body_bytes = 0
        self._quiet_since = 0.0
        self._unread = 0
        self._lingering = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock: a new connection owes its first request."""
        super().connection_made(transport)
        self.plane.connections.add(self)
        self._receiving_since = self._quiet_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drops what the client no longer waits for."""
        self.plane.connections.discard(self)
        if isinstance(self._active, Exchange):
            self._active.abandon()
        elif self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()
        for waiting, _ in self.pipeline:
            if isinstance(waiting, Exchange):
                waiting.abandon()
        self.pipeline.clear()
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        """Whether nothing is being received, computed or written here."""
        return (
            self._active is None
            and not self.pipeline
            and (self._incoming is None or self._incoming.response_complete)
            and self.transport.get_write_buffer_size() == 0
        )

    def idle_since(self) -> float:
        """When the last answer went out."""
        return self._quiet_since

    def in_work(self) -> tuple[Exchange, float] | None:
        """The inference that is in work here, and when it was received."""
        active = self._active
        return active.in_work() if isinstance(active, Exchange) else None

    # The parser

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._incoming = None
        self._begun = True
        self._headers_done = False
        self._body_bytes = 0
        if self._receiving_since is None:
            self._receiving_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Chooses the way: an exchange, or uvicorn's own."""
        self._headers_done = True
        if self._lingering:
            return
        route = self.plane.routes.find(self.parser.get_method(), self.url)
        if route is None and any(
            name == b"content-type" and value.startswith(b"application/grpc") for name, value in self.headers
        ):
            route = Route(Kind.GRPC, method=self.url.decode("latin-1"))
        if route is None:
            self._go_long_way()
            return
        exchange = Exchange(self, route, self.parser.should_keep_alive(), self.expect_100_continue)
        exchange.headers(self.headers)
        self._incoming = exchange
        self.cycle = exchange  # type: ignore[assignment]
        if self._active is not None or self.pipeline or self.flow.write_paused:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))
        else:
            self._active = exchange
            exchange.start()

    def _go_long_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        if self._incoming is not None:
            if not self._incoming.response_complete:
                self._incoming.body(body)
        elif self._body_bytes > self.plane.limits.max_request_bytes:
            self.transport.abort()
        elif not self._lingering:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come whole."""
        self._receiving_since = None
        if self._lingering:
            self.transport.close()
        elif self._incoming is not None:
            self._incoming.complete()
        else:
            super().on_message_complete()

    # Turns

    def _start_asgi_task(self, cycle: Turn, app: ASGI3Application) -> None:
        self._active = cycle
        if isinstance(cycle, Exchange):
            cycle.start()
            return
        if self.plane.service.draining:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def answered(self, exchange: Exchange) -> None:
        """An exchange has written its answer."""
        if exchange.keep_alive:
            self.on_response_complete()
        elif exchange.received:
            self.transport.close()
        else:
            # The client still sends. Closing now would reset the connection under an unread answer.
            self._lingering = True
            self._quiet_since = self.loop.time()
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Lets the next request have its turn."""
        self._active = None
        self._quiet_since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.loop.call_soon(self._next)  # not at once: a thousand pipelined requests would nest as deep
        else:
            self.flow.resume_reading()

    def _next(self) -> None:
        if self._active is None and self.pipeline and not self.flow.write_paused and not self.transport.is_closing():
            cycle, app = self.pipeline.pop()
            if not self.pipeline:
                self.flow.resume_reading()
            self._start_asgi_task(cycle, app)

    def resume_writing(self) -> None:
        """The client reads again: requests that waited for that go on."""
        super().resume_writing()
        self._next()

    # Time

    def shutdown(self) -> None:
        """Ends the connection after the request it has."""
        if self.is_idle():
            self.transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Closes the connection if one of its time limits has passed."""
        if self.transport.is_closing():
            return
        limits = self.plane.limits
        if self.flow.write_paused:
            unread = self.transport.get_write_buffer_size()
            if unread != self._unread:
                self._unread, self._quiet_since = unread, now
            elif now - self._quiet_since > limits.stalled_s:
                self.transport.abort()
        elif self._lingering:
            if now - self._quiet_since > _LINGER_S:
                self.transport.abort()
        elif self._receiving_since is not None:
            if self.flow.read_paused:  # it is we who do not read
                self._receiving_since, self._body_bytes = now, 0
            elif self._too_slow(now - self._receiving_since):
                if self._begun and (self._active is None or self._active is self._incoming):
                    self.transport.write(_TIMEOUT)
                self.transport.close()
        elif self._active is None and now - self._quiet_since > limits.idle_s:
            self.transport.close()

    def _too_slow(self, elapsed: float) -> bool:
        limits = self.plane.limits
        if not self._headers_done:
            return elapsed > limits.header_s
        return elapsed > limits.body_grace_s and self._body_bytes < (elapsed - limits.body_grace_s) * (
            limits.body_bytes_per_s
        )


_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
