"""A whole HTTP connection: any bytes, in pieces of any size, against the real protocol, application and queue.

What must hold, whatever comes: no exception leaves the protocol, nothing is logged as an error, what goes out is
well-formed HTTP without a 500, everything ends, no byte stays counted, and a
connection that was left open still answers.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import httptools
import uvicorn
from uvicorn.server import ServerState

from serving.http.application import LazyApplication
from serving.http.exchange import Exchange
from serving.http.plane import DataPlane, Limits
from serving.http.protocol import InferenceProtocol
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics

_WITHIN_S = 10.0
_LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class Pipe(asyncio.Transport):
    """The server's side of a connection that exists in memory alone."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.out = bytearray()
        self.paused = False
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self.out += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))


class _Answers:
    """Holds what goes out against llhttp; a 500 is an answer that nobody meant to give."""

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpResponseParser(self)
        self.statuses: list[int] = []

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())


def _settled(protocol: InferenceProtocol) -> bool:
    """Whether the next step is the client's: nothing is in work but a request whose end has not come."""
    active = protocol._active
    if protocol.transport.is_closing() or active is None:
        return protocol.transport.is_closing() or not protocol.pipeline
    return active.response_complete or not active.received if isinstance(active, Exchange) else active.more_body


class Connection:
    """The target; one instance serves every run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._errors = _Errors()
        logging.getLogger().addHandler(self._errors)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._loop.set_exception_handler(lambda loop, context: self._errors.seen.append(repr(context)))
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-fuzz-")
        model = Path(self._folder.name) / "m.identity.json"
        model.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
        metrics = Metrics()
        limits = Limits(max_request_bytes=8192, max_held_bytes=16384, max_overhead_bytes=2048, max_target_bytes=256)
        admission = Admission(16, limits.max_held_bytes)
        repository = Repository((model,), None, metrics, {}, admission)
        self._loop.run_until_complete(repository.start())
        self._plane = DataPlane(Service(repository), metrics, limits, {"penstock-revision": "r1"}, admission)
        self._config = uvicorn.Config(
            LazyApplication(self._plane.service), ws="none", lifespan="off", access_log=False, log_config=None
        )
        self._config.load()
        self._state = ServerState()
        self(b"\0\0GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")  # the application is imported outside the measurement

    def __call__(self, data: bytes) -> None:
        """One connection; the first byte is the size of its pieces (0: all at once), the second how it goes on."""
        self._errors.seen.clear()
        self._loop.run_until_complete(self._converse(data[2:], sum(data[:1]) or max(len(data), 1), sum(data[1:2])))

    async def _converse(self, data: bytes, size: int, how: int) -> None:
        plane, pipe = self._plane, Pipe()
        protocol = InferenceProtocol(self._config, self._state, plane, self._loop)
        protocol.connection_made(pipe)
        for number, at in enumerate(range(0, len(data), size)):
            await self._until(
                lambda: not pipe.paused or pipe.is_closing(), f"the protocol never read on after byte {at}"
            )
            if pipe.is_closing():
                break
            protocol.data_received(data[at : at + size])
            if how & 1 and number == 1:
                protocol.pause_writing()
                await asyncio.sleep(0)
                protocol.resume_writing()
            if how & 2:
                protocol.sweep(self._loop.time())
        await self._until(lambda: _settled(protocol), "a request was never answered")
        head = b"HEAD " in data
        if how & 4 and not pipe.is_closing():
            protocol.eof_received()
            pipe.close()
        if protocol.is_idle() and protocol._receiving_since is None and not protocol._deaf and not pipe.is_closing():
            begun = len(pipe.out)
            protocol.data_received(_LIVE)
            await self._until(lambda: _settled(protocol), "the request after these was never answered")
            assert pipe.out[begun:].endswith(b'{"live":true}'), bytes(pipe.out[begun:])
        if not pipe.is_closing():
            protocol.sweep(self._loop.time() + 10_000)
        protocol.connection_lost(None)
        for _ in range(4):
            await asyncio.sleep(0)
        await self._until(lambda: not self._state.tasks, "a task outlived its connection")
        assert plane.admission.bytes == 0, plane.admission.bytes
        assert not plane.connections
        assert not self._errors.seen, self._errors.seen
        if not head:
            answers = _Answers()
            answers.parser.feed_data(bytes(pipe.out))
            assert 500 not in answers.statuses, bytes(pipe.out)

    async def _until(self, holds: Any, what: str) -> None:
        end = time.process_time() + _WITHIN_S  # of our own: a busy machine is no fault
        while not holds():
            assert time.process_time() < end, what
            await asyncio.sleep(0)
