"""gRPC over HTTP/2 on a port of its own: for clients that reach this server directly, and for streams.

grpcio's asyncio server runs on the same event loop as REST, so that both stand in the same queue. The
messages are our own classes (``protocols.grpc``), so nothing is registered in protobuf's default pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc as grpcio

from serving import grpc_methods
from serving.contract import GRPC_SERVICE, STREAM_METHOD
from serving.errors import Cancelled, PortInUse, ServingError
from serving.http import grpc_wire
from serving.metrics import ModelCounters
from serving.observing import Facts
from serving.protocols import classification, grpc
from serving.scheduling import Admission, Job, ModelQueue, Result
from serving.service import Service

_log = logging.getLogger(__name__)
_METADATA_BYTES = 64 * 2**10
"""As much as the router takes; grpcio's own limit refuses some calls between 8 and 16 KiB and some not."""
_CODES = {code.value[0]: code for code in grpcio.StatusCode}


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
        self._service = service
        self._identity = tuple(identity.items())
        self._admission = admission
        self._in_work: set[_Call] = set()
        service.in_work.append(lambda: [(call, call.received) for call in self._in_work])
        self._server = grpcio.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes - grpc_wire.PREFIX_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_metadata_size", _METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ]
        )
        # Unary calls are served as streams of one message: grpcio's own unary handler never answers a call that ends
        # without a message, nor one whose only message is cut off.
        handlers: dict[str, Any] = {
            method: grpcio.stream_unary_rpc_method_handler(self._unary(method))
            for method in grpc.METHODS
            if method not in ("ModelInfer", STREAM_METHOD)
        }
        handlers["ModelInfer"] = grpcio.stream_unary_rpc_method_handler(self._infer)
        handlers[STREAM_METHOD] = grpcio.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers(
            (grpcio.method_handlers_generic_handler(GRPC_SERVICE, handlers), _UnknownMethods())
        )

    def bind(self, host: str, port: int) -> int:
        """Takes the port, or a free one for 0, and gives its number."""
        try:
            return int(self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
        except RuntimeError as error:
            raise PortInUse(
                f"gRPC port {port} on {host} is in use by another process; "
                "stop that process or choose another port with --grpc-port"
            ) from error

    async def start(self) -> None:
        """Begins to answer."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls and lets the ones in work end."""
        await self._server.stop(grace_s)

    def _unary(self, method: str) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def answer(messages: Any, context: Any) -> bytes:
            try:
                message = grpc.parse(grpc_methods.request_class(method), await _one(context))
                return _serialize(await grpc_methods.call(self._service, method, message))
            except Exception as error:
                raise await self._refused(context, error) from None

        return answer

    async def _infer(self, messages: Any, context: Any) -> bytes:
        try:
            answer = _serialize(await self._inferred(grpc.parse(grpc.InferRequest, await _one(context)), context))
        except Exception as error:
            raise await self._refused(context, error) from None
        if self._identity:
            await context.send_initial_metadata(self._identity)
        return answer

    async def _stream(self, messages: Any, context: Any) -> None:
        if self._identity:
            await context.send_initial_metadata(self._identity)
        while (payload := await context.read()) is not grpcio.aio.EOF:
            id = ""
            try:
                message = grpc.parse(grpc.InferRequest, payload)
                id = message.id
                async with contextlib.aclosing(self._answers(message, context)) as answers:
                    async for answer in answers:
                        await context.write(_serialize(answer))
            except grpcio.aio.BaseError:
                raise  # nobody is there to be told
            except Exception as error:
                refusal = grpc.StreamInferResponse(
                    error_message=str(_told(error)), infer_response=grpc.InferResponse(id=id)
                )
                await context.write(_serialize(refusal))

    async def _answers(self, message: Any, context: Any) -> AsyncGenerator[Any, None]:
        queue = self._streaming(message)
        if queue is None:
            yield grpc.streamed(await self._inferred(message, context, STREAM_METHOD), final=True)
            return
        observer = self._service.observer
        received = time.perf_counter()
        call = _Call(message, context, STREAM_METHOD, received)
        call.queue = queue
        self._in_work.add(call)
        job = None
        try:
            request = grpc.decode(message)
            stream = queue.stream(request, received, context.time_remaining())
            job = call.job = stream.job
            async for response in stream:
                yield grpc.streamed(
                    grpc.encode(classification.answered(response, request, queue.signature)), final=False
                )
        except ServingError as error:
            observer.refused(call, queue.counters, received, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            observer.refused(call, queue.counters, received, Cancelled("the client went away before its answer"))
            raise
        finally:
            self._in_work.discard(call)
            if job is not None:
                job.cancel()
        if grpc.wants_final(request):
            yield grpc.final(queue.name, queue.version, request)
        observer.answered(call, queue.counters, received, time.perf_counter())

    def _streaming(self, message: Any) -> ModelQueue | None:
        with contextlib.suppress(ServingError):  # said where it is asked again
            queue = self._service.models.find(message.model_name, message.model_version)
            if queue.streams:
                return queue
        return None

    async def _refused(self, context: Any, error: Exception) -> Exception:
        """Ends a call with the error's code and text; gives what to raise then."""
        told = _told(error)
        try:
            await context.abort(_CODES[told.grpc], str(told), self._identity)
        except Exception as aborted:
            return aborted
        raise AssertionError("grpcio's abort always raises")

    async def _inferred(self, message: Any, context: Any, method: str = "ModelInfer") -> Any:
        received = time.perf_counter()
        observer = self._service.observer
        held_bytes = 0
        call = _Call(message, context, method, received)
        self._in_work.add(call)
        answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            size_bytes = message.ByteSize()
            if (refused := self._admission.hold(size_bytes)) is not None:
                raise refused
            held_bytes = size_bytes
            queue = call.queue = self._service.models.find(message.model_name, message.model_version)
            request, timeout_s = grpc.decode(message), context.time_remaining()
            job = queue.submit(request, received, timeout_s, lambda *of: _settle(call, answered, *of))
            call.job = job or call.job
            result = await answered
            if isinstance(result, ServingError):
                raise result
            begun = time.perf_counter()
            if request.outputs:
                result = classification.answered(result, request, queue.signature)
            call.answer = grpc.encode(result)
        except ServingError as error:
            observer.refused(call, call.counters, received, error)
            raise
        except asyncio.CancelledError:
            if call.job is not None:
                call.job.cancel()
            observer.refused(call, call.counters, received, Cancelled("the client went away before its answer"))
            raise
        finally:
            self._admission.bytes -= held_bytes
            self._in_work.discard(call)
        observer.answered(call, queue.counters, received, begun)
        return call.answer


class _Call:
    """An inference on its way, for whoever observes it."""

    __slots__ = ("answer", "context", "job", "message", "method", "queue", "received")

    def __init__(self, message: Any, context: Any, method: str, received: float) -> None:
        self.message = message
        self.context = context
        self.method = method
        self.received = received
        self.queue: ModelQueue | None = None
        self.job: Job | None = None
        self.answer: Any = None

    @property
    def counters(self) -> ModelCounters | None:
        return None if self.queue is None else self.queue.counters

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
            self.job,
        )

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.context.invocation_metadata() or () if key == name), None)


class _UnknownMethods(grpcio.GenericRpcHandler):
    """Answers for methods and services that do not exist, in our words."""

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        async def refuse(messages: Any, context: Any) -> bytes:
            error = grpc_methods.unknown(method.removeprefix(f"/{GRPC_SERVICE}/"))
            await context.abort(_CODES[error.grpc], str(error))
            return b""

        return grpcio.stream_unary_rpc_method_handler(refuse)


def _told(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    _log.error("a gRPC call failed", exc_info=error)
    return ServingError("the server failed to answer this call; its log says why")


async def _one(context: Any) -> bytes:
    message = await context.read()
    if message is grpcio.aio.EOF:
        raise grpc_wire.NotOneMessage
    return bytes(message)


def _settle(call: _Call, answered: asyncio.Future[Result], job: Job, result: Result) -> None:
    call.job = job
    if not answered.done():
        answered.set_result(result)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
