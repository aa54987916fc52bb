"""gRPC over HTTP/2 on a port of its own: for clients that reach this server directly, and for streams.

It runs on the same event loop as REST, so that both stand in the same queue. The messages are our own classes
(``protocols.grpc``), so nothing is registered in protobuf's default pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from serving.contract import COMPRESSION_METADATA_KEY, GRPC_SERVICE, STREAM_METHOD
from serving.errors import Cancelled, GrpcCode, PortInUse, ServingError
from serving.grpc import core as grpc_core
from serving.grpc import methods as grpc_methods
from serving.grpc.core import Gone
from serving.http import grpc_wire
from serving.protocols import classification, grpc
from serving.requests import Request
from serving.scheduling import Admission, Job, ModelQueue, Result
from serving.service import Service
from serving.telemetry.metrics import ModelCounters
from serving.telemetry.observing import Facts

_log = logging.getLogger(__name__)

_METADATA_BYTES = 64 * 2**10
"""As much as the router takes; the core's own limit refuses some calls between 8 and 16 KiB and some not."""
_PREFIX = f"/{GRPC_SERVICE}/"
_INFER = f"{_PREFIX}ModelInfer"
_STREAM = f"{_PREFIX}{STREAM_METHOD}"


class GrpcServer:
    """The gRPC port of a server process."""

    def __init__(
        self,
        service: Service,
        max_message_bytes: int,
        identity: dict[str, str],
        admission: Admission,
        shared: bool = False,
    ) -> None:
        self.service = service
        self.admission = admission
        self.in_work: set[_Inference] = set()
        service.in_work.append(lambda: [(inference, inference.received) for inference in self.in_work])
        self._tasks: set[asyncio.Task[None]] = set()
        options = (
            ("grpc.max_receive_message_length", max_message_bytes - grpc_wire.PREFIX_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ("grpc.max_concurrent_streams", 1024),
            # As long as REST gives a client for its first headers, and keeps an idle connection.
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 620_000),
            # A client that died without a word is found within these, and its calls leave the queue.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        )
        self._core = grpc_core.Core(options, tuple(identity.items()), self._called)

    def bind(self, host: str, port: int) -> int:
        """Takes the port, or a free one for 0, and gives its number."""
        try:
            bound = self._core.bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:
            raise PortInUse(
                f"gRPC port {port} on {host} is in use by another process; "
                "stop that process or choose another port with --grpc-port"
            )
        return bound

    async def start(self) -> None:
        """Begins to answer."""
        self._core.start()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls and lets the ones in work end."""
        await self._core.stop(grace_s)

    def _called(self, call: grpc_core.Call, payload: bytes | None) -> None:
        if call.over:
            return
        for name, value in call.metadata:
            if name == COMPRESSION_METADATA_KEY:
                call.compression = grpc_wire.compression(value)
        if call.method == _INFER:
            self._infer(call, payload)
        elif call.method == _STREAM:
            task = self._begin(self._stream(call, payload))
            call.on_gone = task.cancel
        else:
            self._begin(self._manage(call, call.method.removeprefix(_PREFIX), payload))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _infer(self, call: grpc_core.Call, payload: bytes | None) -> None:
        try:
            message = grpc.parse(grpc.InferRequest, _whole(payload))
        except ServingError as error:
            _refuse(call, error)
            return

        def answer(result: Any) -> None:
            if isinstance(result, ServingError):
                _refuse(call, result)
            else:
                call.finish(GrpcCode.OK, message=result.SerializeToString())

        inference = _Inference(self, call, message, "ModelInfer", answer)
        call.on_gone = inference.abandon
        inference.begin()

    async def _manage(self, call: grpc_core.Call, method: str, payload: bytes | None) -> None:
        try:
            message = grpc.parse(grpc_methods.request_class(method), _whole(payload))
            grpc_methods.addressed(message, call.header)
            answer = await grpc_methods.call(self.service, method, message)
            call.finish(GrpcCode.OK, message=answer.SerializeToString())
        except Exception as error:
            _refuse(call, _told(error))

    async def _stream(self, call: grpc_core.Call, payload: bytes | None) -> None:
        with contextlib.suppress(Gone):
            while payload is not None:
                id = ""
                try:
                    message = grpc.parse(grpc.InferRequest, payload)
                    id = message.id
                    async with contextlib.aclosing(self._answers(message, call)) as answers:
                        async for answer in answers:
                            await call.write(answer.SerializeToString())
                except Gone:
                    raise
                except Exception as error:
                    refusal = grpc.StreamInferResponse(
                        error_message=str(_told(error)), infer_response=grpc.InferResponse(id=id)
                    )
                    await call.write(refusal.SerializeToString())
                payload = await call.read()
            call.finish(GrpcCode.OK)

    async def _answers(self, message: Any, call: grpc_core.Call) -> AsyncGenerator[Any, None]:
        queue = self._streaming(message, call)
        if queue is None:
            yield grpc.streamed(await self._inferred(message, call), final=True)
            return
        observer = self.service.observer
        inference = _Inference(self, call, message, STREAM_METHOD, lambda result: None)
        received = inference.received
        inference.queue = queue
        self.in_work.add(inference)
        job = None
        try:
            request = grpc.decode(message, queue.signature)
            stream = queue.stream(request, received, call.time_remaining())
            job = inference.job = stream.job
            async for response in stream:
                yield grpc.streamed(
                    grpc.encode(classification.answered(response, request, queue.signature)), final=False
                )
        except ServingError as error:
            observer.refused(inference, queue.counters, received, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            observer.refused(inference, queue.counters, received, Cancelled("the client went away before its answer"))
            raise
        finally:
            self.in_work.discard(inference)
            if job is not None:
                job.cancel()
        if grpc.wants_final(request):
            yield grpc.final(queue.name, queue.version, request)
        observer.answered(inference, queue.counters, received, time.perf_counter())

    def _streaming(self, message: Any, call: grpc_core.Call) -> ModelQueue | None:
        with contextlib.suppress(ServingError):  # said where it is asked again
            queue = grpc_methods.queue(self.service, message, call.header)
            if queue.streams:
                return queue
        return None

    async def _inferred(self, message: Any, call: grpc_core.Call) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(result: Any) -> None:
            if not answered.done():  # the stream was cancelled just now
                answered.set_result(result)

        inference = _Inference(self, call, message, STREAM_METHOD, settle)
        inference.begin()
        try:
            result = await answered
        except asyncio.CancelledError:
            inference.abandon()
            raise
        if isinstance(result, ServingError):
            raise result
        return result


class _Inference:
    """An inference on its way. ``then`` gets the answer's message or the error, once, unless it is abandoned."""

    __slots__ = ("_held_bytes", "_is_over", "_request", "_server", "_then", "answer", "call", "job", "message",
                 "method", "queue", "received")  # fmt: skip

    def __init__(
        self, server: GrpcServer, call: grpc_core.Call, message: Any, method: str, then: Callable[[Any], None]
    ) -> None:
        self.message = message
        self.call = call
        self.method = method
        self.received = time.perf_counter()
        self.queue: ModelQueue | None = None
        self.job: Job | None = None
        self.answer: Any = None
        self._server = server
        self._then = then
        self._request: Request | None = None
        self._held_bytes = 0
        self._is_over = False

    def begin(self) -> None:
        """Enters the queue."""
        server, message = self._server, self.message
        server.in_work.add(self)
        try:
            size_bytes = message.ByteSize()
            if (refused := server.admission.hold(size_bytes)) is not None:
                raise refused
            self._held_bytes = size_bytes
            queue = self.queue = grpc_methods.queue(server.service, message, self.header)
            request = self._request = grpc.decode(message, queue.signature)
            job = queue.submit(request, self.received, self.call.time_remaining(), self._done)
            self.job = job or self.job
        except Exception as error:
            self._refuse(_told(error))

    def abandon(self) -> None:
        """Leaves the queue: nobody waits any more."""
        if not self._is_over:
            self._end()
            if self.job is not None:
                self.job.cancel()
            error = Cancelled("the client went away before its answer")
            self._server.service.observer.refused(self, self.counters, self.received, error)

    def _done(self, job: Job, result: Result) -> None:
        self.job = job
        if self._is_over:
            return
        if isinstance(result, ServingError):
            self._refuse(result)
            return
        assert self.queue is not None
        assert self._request is not None
        try:
            begun = time.perf_counter()
            if self._request.outputs:
                result = classification.answered(result, self._request, self.queue.signature)
            self.answer = grpc.encode(result)
        except Exception as error:
            self._refuse(_told(error))
            return
        self._end()
        self._then(self.answer)
        self._server.service.observer.answered(self, self.queue.counters, self.received, begun)

    def _refuse(self, error: ServingError) -> None:
        if not self._is_over:
            self._end()
            self._server.service.observer.refused(self, self.counters, self.received, error)
            self._then(error)

    def _end(self) -> None:
        self._is_over = True
        self._server.admission.bytes -= self._held_bytes
        self._server.in_work.discard(self)

    @property
    def counters(self) -> ModelCounters | None:
        return None if self.queue is None else self.queue.counters

    @property
    def traced(self) -> bool:
        return self.header("traceparent") is not None

    def facts(self) -> Facts:
        message, queue = self.message, self.queue
        path = f"/{GRPC_SERVICE}/{self.method}"
        return Facts(
            "grpc",
            path,
            path,
            message.model_name if queue is None else queue.name,
            message.model_version if queue is None else queue.version,
            message.id,
            message.ByteSize(),
            0 if self.answer is None else self.answer.ByteSize(),
            None if self.job is None else self.job.way(),
        )

    def header(self, name: str) -> str | None:
        return self.call.header(name)


def _whole(payload: bytes | None) -> bytes:
    if payload is None:
        raise grpc_wire.NotOneMessage
    return payload


def _refuse(call: grpc_core.Call, error: ServingError) -> None:
    call.finish(error.grpc, str(error))


def _told(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    _log.error("a gRPC call failed", exc_info=error)
    return ServingError("the server failed to answer this call; its log says why")
