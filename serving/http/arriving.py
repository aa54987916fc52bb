"""A request as it arrives: its headers, its body within the limits, its turn on the connection.

It stands where uvicorn expects a ``RequestResponseCycle``, so that it takes its turn among pipelined requests; the
attributes uvicorn touches are marked.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from serving.contract import MIRROR_HEADER
from serving.errors import ServingError, TooLarge
from serving.http import coding, grpc_wire
from serving.protocols import binary
from serving.scheduling import Job

if TYPE_CHECKING:
    from serving.http.protocol import InferenceProtocol

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client that asked first is told to send its body."""


_MIRROR = MIRROR_HEADER.encode()
_PART_BYTES = 4096
"""Smaller parts of a body are put together as they come: an object each would be more than what it holds."""


class _NoEvent:
    def set(self) -> None:
        """Uvicorn wakes a waiting application; nobody waits here."""


class Arriving(ABC):
    """A request from its headers to its last byte; what is done then is for ``Exchange``."""

    message_event: ClassVar[Any] = _NoEvent()  # uvicorn
    response_complete = False  # uvicorn
    disconnected = False  # uvicorn
    received = False
    traced = False
    """Whether its caller traces it."""
    # Most requests need few of these, so they are set where they differ: half a microsecond a request.
    _parts: list[bytes | bytearray] = []  # noqa: RUF012 (never changed, only replaced)
    _size = 0
    _held = 0
    _started = False
    _received_at = 0.0
    _problem: ServingError | None = None
    _job: Job | None = None
    _header_length: int | None = None
    _encoding = ""
    _coding: str | None = None
    _grpc_encoding = ""
    _grpc_timeout_s: float | None = None
    _mirrors: tuple[bytes, ...] = ()
    """For whom copies are, as the router says."""
    _unsent = 0.0
    _headers: list[tuple[bytes, bytes]]

    def __init__(self, protocol: InferenceProtocol, keep_alive: bool, wants_continue: bool) -> None:
        self.keep_alive = keep_alive  # uvicorn
        self._protocol = protocol
        self._wants_continue = wants_continue

    @abstractmethod
    def _ask(self) -> None:
        """Raises what speaks against taking the request at all, before its body is read."""

    @abstractmethod
    def _run(self) -> None:
        """Answers it: its turn has come, and it is whole or has a problem."""

    def headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Takes from the request's headers what matters to it."""
        self._headers = headers
        try:
            for name, value in headers:
                if name == b"content-length":
                    self._unsent = int(value)
                    self._admit(self._unsent)
                elif name == binary.HEADER:
                    self._header_length = binary.header_length(value)
                elif name == b"content-encoding":
                    self._encoding = value.decode("latin-1").strip().lower()
                elif name == b"accept-encoding":
                    self._coding = coding.accepted(value.decode("latin-1"))
                elif name == b"grpc-encoding":
                    self._grpc_encoding = value.decode("latin-1")
                elif name == b"grpc-timeout":
                    self._grpc_timeout_s = grpc_wire.timeout_s(value)
                elif name == b"transfer-encoding":
                    self._unsent = math.inf
                elif name == b"traceparent":
                    self.traced = True
                elif name == _MIRROR:
                    self._mirrors += (value,)
            self._ask()
        except ServingError as error:
            self._problem = error

    def header(self, name: str) -> str | None:
        """The first header of this lower-case name."""
        wanted = name.encode()
        for found, value in self._headers:
            if found == wanted:
                return value.decode("latin-1")
        return None

    def spoil(self, error: ServingError) -> None:
        """The rest of the request will not come, or cannot be read."""
        self._problem = error
        self.keep_alive = False
        self._unsent = math.inf
        self._drop_body()
        if self._started:
            self._run()

    def body(self, data: bytes) -> None:
        """Takes a part of the body; one beyond the limits is refused at once."""
        if self._problem is not None:
            return
        self._size += len(data)
        try:
            self._admit(self._size)
            if not self._parts:
                self._parts = [data]
                return
            self._hold()
        except ServingError as error:
            self._problem = error
            self._drop_body()
            if self._started:
                self._run()
            return
        if len(data) >= _PART_BYTES:
            self._parts.append(data)
        elif isinstance(self._parts[-1], bytearray):
            self._parts[-1] += data
        else:
            self._parts.append(bytearray(data))

    def _whole(self) -> bytes | bytearray:
        """The body. Its parts are put together only now: a growing buffer would be copied as it grows."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def _admit(self, size: int) -> None:
        limit = self._protocol.plane.limits.max_request_bytes
        if size > limit:
            raise TooLarge(
                f"the request has {size} bytes or more, the limit of this server is {limit} (--max-request-bytes)"
            )

    def _hold(self) -> None:
        admission = self._protocol.plane.admission
        if (refused := admission.hold(self._size - self._held)) is not None:
            raise refused
        self._held = self._size

    def _drop_body(self) -> None:
        self._parts = []
        if self._held:
            self._protocol.plane.admission.bytes -= self._held
            self._held = 0

    def complete(self) -> None:
        """The last byte of the request has come."""
        self.received = True
        self._received_at = time.perf_counter()
        if self._started and not self.response_complete:
            self._run()

    def start(self) -> None:
        """Its turn has come: everything before it on this connection is answered."""
        self._started = True
        if self.received or self._problem is not None:
            self._run()
        elif self._wants_continue:
            self._protocol.transport.write(CONTINUE)

    def abandon(self) -> None:
        """The client has gone."""
        self.disconnected = True
        self._drop_body()
        if self._job is not None and not self.response_complete:
            self._job.cancel()
