"""One request that the protocol class answers itself: what is done with it, and its answer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

import orjson

from serving.contract import COMPRESSION_METADATA_KEY, GRPC_SERVICE
from serving.errors import Cancelled, ServingError, Unsupported
from serving.grpc import methods as grpc_methods
from serving.http import coding, grpc_wire
from serving.http.arriving import Arriving
from serving.http.routes import Kind, Route
from serving.protocols import classification, generate, grpc, v1, v2
from serving.requests import Request, Response
from serving.scheduling import Job, ModelQueue, Result, Stream
from serving.telemetry import metrics
from serving.telemetry.observing import Facts

if TYPE_CHECKING:
    from serving.http.protocol import InferenceProtocol

_log = logging.getLogger(__name__)
T = TypeVar("T")

JSON = b"application/json"
OCTETS = b"application/octet-stream"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain"
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus} | {
    499: b"HTTP/1.1 499 Client Closed Request\r\n"
}
_PROTOCOLS = {
    Kind.V2_INFER: ("v2", "/v2/models/{model}/infer"),
    Kind.GENERATE: ("v2", "/v2/models/{model}/generate"),
    Kind.GENERATE_STREAM: ("v2", "/v2/models/{model}/generate_stream"),
    Kind.V1_PREDICT: ("v1", "/v1/models/{model}:predict"),
    Kind.GRPC: ("grpc", f"/{GRPC_SERVICE}/{{method}}"),
}
"""What is observed at its end: the protocol's name and the path of such a request."""
_NAMING = frozenset({Kind.V2_INFER, Kind.GENERATE, Kind.GENERATE_STREAM, Kind.V1_PREDICT})
"""Requests whose target names their model."""
_FOR_THIS_MACHINE = frozenset({Kind.REQUESTS, Kind.SHADOW})
_END_OF_HEAD = b"\r\n\r\n"
_DISCARDED_BYTES = 256 * 1024
"""A body up to this size is read and thrown away after an early answer, and the connection stays."""


class Exchange(Arriving):
    """A request on the short way."""

    begun = False
    """Whether a part of its answer is on the way."""
    _sent = 0
    _queue: ModelQueue | None = None
    _request: Request | None = None
    _rows = True

    def __init__(self, protocol: InferenceProtocol, route: Route, keep_alive: bool, wants_continue: bool) -> None:
        super().__init__(protocol, keep_alive, wants_continue)
        self._route = route

    def _ask(self) -> None:
        """Whether the request will be taken at all, before its body is read."""
        kind, plane = self._route.kind, self._protocol.plane
        if kind in _NAMING:
            queue = plane.service.models.find(self._route.model, self._route.version)
            if (refused := queue.refusal()) is not None:
                self._queue = queue
                raise refused
            return
        is_grpc = kind is Kind.GRPC and self._route.method == "ModelInfer"
        if is_grpc and (refused := plane.admission.refusal()) is not None:
            raise refused

    # What is done with it

    def _run(self) -> None:
        try:
            if self._problem is not None:
                raise self._problem
            match self._route.kind:
                case Kind.V2_INFER:
                    self._v2()
                case Kind.GRPC:
                    self._grpc()
                case Kind.V1_PREDICT:
                    self._v1()
                case Kind.GENERATE | Kind.GENERATE_STREAM:
                    self._generate()
                case _:
                    self._look()
        except ServingError as error:
            self._refuse(error)
        except Exception:
            _log.exception("a request of kind %s failed", self._route.kind.name)
            self._refuse(ServingError("the server failed to answer this request; its log says why"))

    def _v2(self) -> None:
        queue = self._queue = self._protocol.plane.service.models.find(self._route.model, self._route.version)
        body = self._unpacked()
        if self._header_length == 0:
            self._submit(v2.decode_raw(body, queue.signature))
        else:
            self._submit(v2.decode(body, self._header_length, queue.signature))

    def _v1(self) -> None:
        queue = self._queue = self._protocol.plane.service.models.find(self._route.model, self._route.version)
        request, self._rows = v1.decode(self._unpacked(), queue.signature)
        self._submit(request)

    def _generate(self) -> None:
        queue = self._queue = self._protocol.plane.service.models.find(self._route.model, self._route.version)
        request = generate.decode(self._unpacked(), queue.signature)
        if self._route.kind is Kind.GENERATE or not queue.streams:
            self._submit(request)
            return
        self._request = request
        stream = queue.stream(request, self._received_at, None)
        self._job = stream.job
        task = asyncio.ensure_future(self._events(queue, stream))
        self._protocol.tasks.add(task)
        task.add_done_callback(self._protocol.tasks.discard)

    async def _events(self, queue: ModelQueue, stream: Stream) -> None:
        observer = self._protocol.plane.service.observer
        begun = False
        try:
            async for response in stream:
                event = generate.event(generate.encode(response))
                if not begun:
                    begun = True
                    self._begin_stream(generate.STREAM_TYPE)
                self._send_chunk(event)
                await self._protocol.flow.drain()
        except Exception as error:
            stream.cancel()
            refused = self._told(error)
            if not begun:
                self._refuse(refused)
                return
            self._send_chunk(generate.failure(refused))
            self._end_stream()
            observer.refused(self, queue.counters, self._received_at, refused)
        else:
            if not begun:
                self._begin_stream(generate.STREAM_TYPE)
            self._end_stream()
            observer.answered(self, queue.counters, self._received_at, time.perf_counter())
        self._job = self._request = None

    def _grpc(self) -> None:
        is_inference = self._route.method == "ModelInfer"
        kind = grpc.InferRequest if is_inference else grpc_methods.request_class(self._route.method)
        limit = self._protocol.plane.limits.max_request_bytes
        payload = grpc_wire.message(self._whole(), self._grpc_encoding, limit)
        if is_inference:
            message = grpc.parse(grpc.InferRequest, payload)
            self._queue = grpc_methods.queue(self._protocol.plane.service, message, self.header)
            self._submit(grpc.decode(message, self._queue.signature))
            return
        request = grpc_methods.addressed(grpc.parse(kind, payload), self.header)
        call = grpc_methods.call(self._protocol.plane.service, self._route.method, request)
        self._later(call, lambda answer: self._write(200, grpc_wire.answer(answer.SerializeToString())))

    def _later(self, call: Awaitable[T], write: Callable[[T], None]) -> None:
        """Answers when ``call`` has a result, with what ``write`` makes of it."""
        task = asyncio.ensure_future(call)
        self._protocol.tasks.add(cast("asyncio.Task[None]", task))
        task.add_done_callback(lambda done: self._called(done, write))

    def _called(self, task: asyncio.Future[T], write: Callable[[T], None]) -> None:
        self._protocol.tasks.discard(cast("asyncio.Task[None]", task))
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ServingError):
            self._refuse(error)
        elif error is not None or task.cancelled():
            _log.error("a request of kind %s %s failed", self._route.kind.name, self._route.method, exc_info=error)
            self._refuse(ServingError("the server failed to answer this call; its log says why"))
        else:
            write(task.result())

    def _unpacked(self) -> bytes | bytearray:
        if self._encoding in ("", "identity"):
            return self._whole()
        return coding.unpack(self._whole(), self._encoding, self._protocol.plane.limits.max_request_bytes)

    def _submit(self, request: Request) -> None:
        assert self._queue is not None
        self._request = request
        self._job = self._queue.submit(request, self._received_at, self._grpc_timeout_s, self._inferred)

    def _inferred(self, job: Job, result: Result) -> None:
        self._job = job
        try:
            if isinstance(result, ServingError):
                raise result
            if self.disconnected:
                raise Cancelled("the client went away before its answer")
            self._answer(result)
        except Exception as error:
            self._refuse(self._told(error))

    def _answer(self, response: Response) -> None:
        assert self._queue is not None
        assert self._request is not None
        begun = time.perf_counter()
        computed = response
        if self._request.outputs:
            response = classification.answered(response, self._request, self._queue.signature)
        if self._route.kind is Kind.GRPC:
            payload = grpc.encode(response).SerializeToString()
            if len(payload) < coding.MIN_COMPRESSED:
                data = grpc_wire.answer(payload)
            else:
                data = grpc_wire.answer(payload, grpc_wire.compression(self.header(COMPRESSION_METADATA_KEY)))
        elif self._route.kind is Kind.V1_PREDICT:
            data = self._framed(JSON, v1.encode(response, self._rows))
        elif self._route.kind is Kind.GENERATE:
            data = self._framed(JSON, generate.encode(response))
        elif self._route.kind is Kind.GENERATE_STREAM:
            data = self._framed(generate.STREAM_TYPE, generate.event(generate.encode(response)))
        else:
            body, length = v2.encode(response, self._request)
            if length is None:
                data = self._framed(JSON, body)
            else:
                data = self._framed(OCTETS, body, b"inference-header-content-length: %d\r\n" % length)
        self._write(200, data)
        self._protocol.plane.service.observer.answered(self, self._queue.counters, self._received_at, begun)
        if self._mirrors:
            self._copy(computed)
        self._job = self._request = None  # an idle connection keeps its last exchange, and needs no tensors of it

    def _copy(self, computed: Response) -> None:
        """Has the request asked of others too, now that its answer is on its way."""
        tap, queue, request = self._protocol.plane.tap, self._queue, self._request
        if tap is None or queue is None or request is None:
            return
        held = sum(tensor.array.nbytes for tensor in (*request.inputs, *computed.outputs))
        for said in self._mirrors:
            tap.offer(said, queue.name, request, computed, held + self._size + self._sent)

    def _look(self) -> None:
        service, kind = self._protocol.plane.service, self._route.kind
        if kind in _FOR_THIS_MACHINE and not self._protocol.is_local():
            text = "what others asked is shown to this machine only; in a cluster: kubectl port-forward"
            self._json(403, {"error": text})
        elif kind is Kind.METRICS:
            of_all = self._protocol.plane.figures_of_all
            if of_all is None:
                self._metrics(self._protocol.plane.metrics.text())
            else:
                self._later(of_all(), self._metrics)
        elif kind is Kind.REQUESTS:
            if (page := service.requests_page) is None:
                raise Unsupported(
                    "no model is computed here, so there are no requests to show; ask a model's own server for "
                    "/debug/requests, at its own port"
                )
            html = "text/html" in (self.header("accept") or "")
            self._write(200, self._framed(HTML if html else JSON, page(html), b"cache-control: no-store\r\n"))
        elif kind is Kind.SHADOW:
            if (tap := self._protocol.plane.tap) is None:
                raise Unsupported("no requests are mirrored from here; a server behind Penstock's router does it")
            body = orjson.dumps(tap.document())
            self._write(200, self._framed(JSON, body, b"cache-control: no-store\r\n"))
        elif kind is Kind.GRPC_HEAD:
            head = coding.beginning(self._whole(), self._grpc_encoding, grpc_wire.HEAD_BYTES)
            self._write(200, self._framed(TEXT, head.hex().upper().encode()))
        elif kind is Kind.LIVE:
            self._json(200, {"live": True})
        elif kind is Kind.READY:
            ready = service.is_ready()
            self._json(200 if ready else 503, {"ready": ready, "live": True})
        else:
            self._describe()

    def _describe(self) -> None:
        service, route = self._protocol.plane.service, self._route
        match route.kind:
            case Kind.SERVER:
                self._json(200, service.metadata())
            case Kind.MODELS:
                self._json(200, {"models": service.model_names()})
            case Kind.MODEL:
                self._json(200, service.model_metadata(route.model, route.version))
            case Kind.MODEL_CONFIG:
                self._json(200, service.model_config(route.model, route.version))
            case Kind.STATISTICS | Kind.MODEL_STATISTICS:
                counted = service.statistics(route.model, route.version)
                self._later(counted, lambda document: self._json(200, document))
            case _:
                service.models.find(route.model, route.version)
                self._json(200, {"name": route.model, "ready": True})

    # What is told of it

    def in_work(self) -> tuple[Exchange, float] | None:
        """The request itself and when it was received, if it is an inference."""
        return (self, self._received_at) if self.received and self._route.kind in _PROTOCOLS else None

    def facts(self) -> Facts:
        """What is known of this request."""
        queue, request = self._queue, self._request
        protocol, route = _PROTOCOLS[self._route.kind]
        path = route.replace("{model}", quote(self._route.model)).replace("{method}", self._route.method)
        if self._route.version:
            head, _, action = path.rpartition("/")
            path = f"{head}/versions/{quote(self._route.version)}/{action}"
        return Facts(
            protocol,
            route,
            path,
            self._route.model if queue is None else queue.name,
            self._route.version if queue is None else queue.version,
            "" if request is None else request.id,
            self._size,
            self._sent,
            None if self._job is None else self._job.way(),
        )

    # What goes out

    def _metrics(self, text: str) -> None:
        self._write(200, self._framed(metrics.CONTENT_TYPE.encode(), text.encode()))

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._coding = None  # tritonclient's asyncio client asks for gzip and reads it in answers to inferences alone
        self._write(status, self._framed(JSON, orjson.dumps(document)))

    def _refuse(self, error: ServingError) -> None:
        if not self.received and (self._unsent > _DISCARDED_BYTES or self._wants_continue):
            self.keep_alive = False
        extra = b""
        if error.retry_after_s is not None:
            extra = b"retry-after: %d\r\n" % math.ceil(error.retry_after_s)
        if self._route.kind is Kind.GRPC:
            self._write(200, extra + grpc_wire.refusal(error))
        else:
            self._write(error.http, self._framed(JSON, orjson.dumps({"error": str(error)}), extra))
        if self._route.kind in _PROTOCOLS:
            counters = None if self._queue is None else self._queue.counters
            self._protocol.plane.service.observer.refused(self, counters, self._received_at, error)
        self._job = self._request = None

    def _framed(self, content_type: bytes, body: bytes, extra: bytes = b"") -> bytes:
        if self._coding is not None and len(body) >= coding.MIN_COMPRESSED:
            body = coding.pack(body, self._coding)
            extra += b"content-encoding: %b\r\nvary: accept-encoding\r\n" % self._coding.encode()
        return b"content-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (content_type, extra, len(body), body)

    def _told(self, error: Exception) -> ServingError:
        """What a client is told of an answer that could not be given."""
        if isinstance(error, ServingError):
            return error
        _log.error("an answer of model %s could not be encoded", self._route.model, exc_info=error)
        return ServingError("the server failed to encode its answer; its log says why")

    def _begin_stream(self, content_type: bytes) -> None:
        """Sends the headers of an answer whose length nobody knows yet."""
        self._drop_body()
        self.begun = True
        protocol = self._protocol
        if protocol.plane.service.draining:
            self.keep_alive = False
        close = b"" if self.keep_alive else b"connection: close\r\n"
        head = b"content-type: %b\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n" % content_type
        self._send(b"".join((_STATUS[200], protocol.plane.common_headers, close, head)))

    def _send_chunk(self, data: bytes) -> None:
        self._sent += len(data)
        self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def _end_stream(self) -> None:
        self._send(b"0\r\n\r\n")
        self.response_complete = True
        if not self.disconnected and not self._protocol.transport.is_closing():
            self._protocol.answered(self)

    def _send(self, data: bytes) -> None:
        if not self.disconnected and not self._protocol.transport.is_closing():
            self._protocol.transport.write(data)

    def _write(self, status: int, rest: bytes) -> None:
        """Sends the answer: ``rest`` is the headers after the common ones, and the body."""
        self._drop_body()
        self._sent = len(rest)
        self.response_complete = True
        protocol = self._protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        if protocol.plane.service.draining:
            self.keep_alive = False
        if self._route.bodiless:
            rest = rest[: rest.index(_END_OF_HEAD) + len(_END_OF_HEAD)]
        close = b"" if self.keep_alive else b"connection: close\r\n"
        protocol.transport.write(b"".join((_STATUS[status], protocol.plane.common_headers, close, rest)))
        protocol.answered(self)
