"""gRPC over HTTP/2 on a port of its own: for clients that reach this server directly, and for streams.

grpcio's asyncio server runs on the same event loop as REST, so that both stand in the same queue. The
messages are our own classes (``protocols.grpc``), so nothing is registered in protobuf's default pool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc as grpcio

from serving import grpc_methods
from serving.contract import GRPC_SERVICE, STREAM_METHOD
from serving.errors import PortInUse, ServingError
from serving.protocols import grpc
from serving.scheduling import Result
from serving.service import Service

_log = logging.getLogger(__name__)
_CODES = {code.value[0]: code for code in grpcio.StatusCode}


class GrpcServer:
    """The gRPC port of a server process."""

    def __init__(self, service: Service, max_message_bytes: int, identity: dict[str, str]) -> None:
        self._service = service
        self._identity = tuple(identity.items())
        self._server = grpcio.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ]
        )
        handlers = {
            method: grpcio.unary_unary_rpc_method_handler(self._unary(method), request.FromString, _serialize)
            for method, (request, _) in grpc.METHODS.items()
            if method not in ("ModelInfer", STREAM_METHOD)
        }
        handlers["ModelInfer"] = grpcio.unary_unary_rpc_method_handler(
            self._infer, grpc.InferRequest.FromString, _serialize
        )
        handlers[STREAM_METHOD] = grpcio.stream_stream_rpc_method_handler(
            self._stream, grpc.InferRequest.FromString, _serialize
        )
        self._server.add_generic_rpc_handlers((grpcio.method_handlers_generic_handler(GRPC_SERVICE, handlers),))

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

    def _unary(self, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(message: Any, context: Any) -> Any:
            try:
                return await grpc_methods.call(self._service, method, message)
            except ServingError as error:
                await context.abort(_CODES[error.grpc], str(error))

        return answer

    async def _infer(self, message: Any, context: Any) -> Any:
        try:
            answer = await self._inferred(message, context.time_remaining())
        except ServingError as error:
            await context.abort(_CODES[error.grpc], str(error))
        if self._identity:
            await context.send_initial_metadata(self._identity)
        return answer

    async def _stream(self, messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for message in messages:
            try:
                answer = await self._inferred(message, context.time_remaining())
                yield grpc.StreamInferResponse(infer_response=answer)
            except ServingError as error:
                yield grpc.StreamInferResponse(
                    error_message=str(error), infer_response=grpc.InferResponse(id=message.id)
                )

    async def _inferred(self, message: Any, timeout_s: float | None) -> Any:
        received = time.perf_counter()
        queue = self._service.models.find(message.model_name, message.model_version)
        answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        job = None
        try:
            job = queue.submit(grpc.decode(message), received, timeout_s, lambda r: _settle(answered, r))
            result = await answered
            if isinstance(result, ServingError):
                raise result
            begun = time.perf_counter()
            answer = grpc.encode(result)
        except ServingError as error:
            queue.counters.failed(error.reason)
            raise
        except asyncio.CancelledError:
            if job is not None:
                job.cancel()
            queue.counters.failed("CANCELED")
            raise
        ended = time.perf_counter()
        queue.counters.compute_output_s += ended - begun
        queue.counters.succeeded(ended - received)
        return answer


def _settle(answered: asyncio.Future[Result], result: Result) -> None:
    if not answered.done():
        answered.set_result(result)


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
