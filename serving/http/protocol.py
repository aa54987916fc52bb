"""uvicorn's httptools protocol, with a short way for the requests that matter.

uvicorn parses, keeps flow control and runs the ASGI application for everything ``routes`` does not
know. Requests it does know become an ``Exchange`` and never meet an ASGI scope, task or event. Both
kinds share one order: on a connection one request is in work, the others wait in ``pipeline``.

This leans on uvicorn's internals; ``tests/contract/test_uvicorn_internals.py`` pins what is used:
``cycle``, ``pipeline``, ``flow``, ``scope``, ``headers``, ``url``, ``client``, ``on_*``, ``_start_asgi_task``.

The caps that llhttp lacks (on targets, headers, chunks, and on all bytes around a body) are held against what has come
after each read, so memory is bounded by them and one read. What cannot be read on is answered in its turn, after the
requests before it, and nothing behind it is read.

The time limits that uvicorn lacks are kept by a sweep over all connections once a second, so a request
costs no timer: headers must come within ``header_s``, a body at ``body_bytes_per_s``, an idle or a
stalled connection is closed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.errors import HeadersTooLarge, InvalidInput, ServingError, TargetTooLong, TooLarge, TooSlow
from serving.http.arriving import CONTINUE
from serving.http.exchange import Exchange
from serving.http.plane import DataPlane
from serving.http.routes import Kind, Route, origin_form

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_log = logging.getLogger(__name__)

_LINGER_S = 5.0
_RESET_S = 0.05
"""How long the host of a client that has gone may take to say so."""
_CHUNK_BYTES = 12
"""A chunk's size, up to eight digits, and the ends of two lines."""
_BODY_HEADERS = (b"content-length", b"transfer-encoding")
_UNREADABLE = Route(Kind.UNREADABLE)

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
        self._deaf = False
        self._half_closed = False
        self._headers_done = False
        self._message_bytes = 0
        self._read_bytes = 0
        self._chunks = 0
        self._body_bytes = 0
        self._quiet_since = 0.0
        self._unread = 0
        self._lingering = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock: a new connection owes its first request."""
        super().connection_made(transport)
        self._receiving_since = self._quiet_since = self.loop.time()
        if (refused := self.plane.joined(self, self._peer())) is not None:
            self._deaf = True
            exchange = Exchange(self, _UNREADABLE, False, False)
            exchange.received = True
            exchange.spoil(refused)
            self._enqueue(exchange)

    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        """Drops what the client no longer waits for."""
        self.plane.left(self, self._peer())
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

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: it waits for answers, or it is gone. True: the connection stays open for them.

        TCP cannot tell the two apart, but a host answers what comes to a closed connection with a reset. So the
        request in work gets an interim response, which clients pass over, and then the socket is asked.
        """
        active: Any = self._active
        if self._lingering or active is None or active.response_complete:
            return False
        short = isinstance(active, Exchange)
        if not active.received if short else active.more_body:
            return False  # the rest of this request will never come
        self._deaf = self._half_closed = True
        self.cycle.keep_alive = False
        begun = active.begun if short else active.response_started
        if not begun and self.parser.get_http_version() == "1.1":
            self.transport.write(CONTINUE)
        self.loop.call_later(_RESET_S, self._abort_if_reset)
        return True

    def _abort_if_reset(self) -> None:
        if not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.transport.abort()

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

    def is_local(self) -> bool:
        """Whether the other end is on this machine."""
        if self.client is None:
            return False
        address = ipaddress.ip_address(self.client[0].partition("%")[0])
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def in_work(self) -> tuple[Exchange, float] | None:
        """The inference that is in work here, and when it was received."""
        active = self._active
        return active.in_work() if isinstance(active, Exchange) else None

    # What arrives

    def data_received(self, data: bytes) -> None:
        """Some bytes of requests."""
        if self._deaf:
            return
        size = self._read_bytes = len(data)
        self._message_bytes += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_after_this()
        except httptools.HttpParserCallbackError:
            _log.exception("a request could not be taken")
            self._refuse(ServingError("the server failed to read this request; its log says why"))
        except httptools.HttpParserError as error:
            self._refuse(InvalidInput(f"what was sent is no HTTP/1.1 request: {error}"))
        else:
            if self._message_bytes > self.plane.limits.max_overhead_bytes and not self._deaf:
                self._check_overhead()

    def _check_overhead(self) -> None:
        """Refuses a request that is larger than its body and its chunks explain."""
        overhead = self._message_bytes - self._body_bytes - self._chunks * _CHUNK_BYTES
        if self._begun and overhead > self.plane.limits.max_overhead_bytes:
            self._refuse(
                HeadersTooLarge(
                    f"the request has {overhead} bytes beside its body, "
                    f"the limit of this server is {self.plane.limits.max_overhead_bytes}"
                )
            )

    def _end_after_this(self) -> None:
        """A wish for another protocol is not granted: the request is answered as HTTP/1.1, and is the last one."""
        self._deaf = True
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.transport.close()

    def _refuse(self, error: ServingError) -> None:
        """Answers in its turn what cannot be read on; nothing behind it is read."""
        self._deaf = True
        incoming = self._incoming
        if self._lingering or (incoming is not None and incoming.response_complete and not incoming.received):
            self.transport.close()  # it has its answer
            return
        if incoming is not None and not incoming.received:
            incoming.spoil(error)
            return
        cycle: Any = self.cycle
        if self._headers_done and isinstance(cycle, RequestResponseCycle) and cycle.more_body:
            self._drop(cycle)
            if cycle.response_started:
                self.transport.close()
                return
        exchange = Exchange(self, _UNREADABLE, False, False)
        exchange.spoil(error)
        self._enqueue(exchange)

    def _drop(self, cycle: RequestResponseCycle) -> None:
        """Tells the application that the rest of its request will never come."""
        cycle.disconnected = True
        cycle.message_event.set()
        if self._active is cycle:
            self._active = None
        else:
            self.pipeline = deque(waiting for waiting in self.pipeline if waiting[0] is not cycle)

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
        self._chunks = 0
        self._message_bytes = 0  # of reads after this one, whose other bytes may be of other requests
        if self._receiving_since is None:
            self._receiving_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self.url += url
        if len(self.url) > self.plane.limits.max_target_bytes and not self._deaf:
            limit = self.plane.limits.max_target_bytes
            self._refuse(TargetTooLong(f"the request's target is longer than {limit} bytes, the limit of this server"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those that trail a body are not looked at."""
        if not self._headers_done:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Chooses the way: an exchange, or uvicorn's own."""
        self._headers_done = True
        if self._lingering or self._deaf or not self._head_fits():
            return
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            self._refuse(
                InvalidInput("the request asks for another protocol (Upgrade) and has a body; send it without")
            )
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
        self._enqueue(exchange)

    def _head_fits(self) -> bool:
        limits = self.plane.limits
        if len(self.headers) > limits.max_headers:
            count = len(self.headers)
            self._refuse(HeadersTooLarge(f"the request has {count} headers, the limit is {limits.max_headers}"))
        elif self._message_bytes + self._read_bytes > limits.max_overhead_bytes:  # perhaps of other requests
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > limits.max_overhead_bytes:
                limit = limits.max_overhead_bytes
                self._refuse(HeadersTooLarge(f"the request's headers have {size} bytes, the limit is {limit}"))
        return not self._deaf

    def _enqueue(self, exchange: Exchange) -> None:
        self.cycle = exchange  # type: ignore[assignment]
        if self._active is not None or self.pipeline or self.flow.write_paused:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))
        else:
            self._active = exchange
            exchange.start()

    def _go_long_way(self) -> None:
        limit = self.plane.limits.max_request_bytes
        if any(name == b"content-length" and int(value) > limit for name, value in self.headers):
            self._refuse(TooLarge(f"the request has more than {limit} bytes, the limit of this server"))
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = origin_form(url), expects
        self.headers.extend(headers)
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            self._refuse(InvalidInput("the request's target is no path of this server; /docs lists what there is"))

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > self.plane.limits.max_chunks + 1 and not self._deaf:  # the last one is empty
            limit = self.plane.limits.max_chunks
            self._refuse(TooLarge(f"the body comes in more than {limit} chunks, the limit of this server"))

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        if self._deaf:
            return
        if self._incoming is not None:
            if not self._incoming.response_complete:
                self._incoming.body(body)
        elif self._body_bytes > self.plane.limits.max_request_bytes:
            limit = self.plane.limits.max_request_bytes
            self._refuse(TooLarge(f"the request has more than {limit} bytes, the limit of this server"))
        elif not self._lingering:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come whole."""
        self._receiving_since = None
        self._begun = False
        self._message_bytes = 0
        if self._deaf:
            return
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
            if self.transport.can_write_eof():
                self.transport.write_eof()
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
        if self._half_closed:
            self._abort_if_reset()
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
                self._end_late()
        elif self._active is None and now - self._quiet_since > limits.idle_s:
            self.transport.close()

    def _end_late(self) -> None:
        """A request that does not come is told so, after the answers before it."""
        if self._begun:
            self._refuse(TooSlow("the request did not come within its time; send it again, faster"))
        else:
            self.transport.close()

    def _too_slow(self, elapsed: float) -> bool:
        limits = self.plane.limits
        if not self._headers_done:
            return elapsed > limits.header_s
        return elapsed > limits.body_grace_s and self._body_bytes < (elapsed - limits.body_grace_s) * (
            limits.body_bytes_per_s
        )
