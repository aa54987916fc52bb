"""What a replica does with a request that Serve's proxy brought: our protocols in front of our queues.

HTTP requests come as their parts and gRPC messages as bytes, so that nothing here knows of Ray. Answered is what
concerns inference: V2 over REST and gRPC, health, metadata, configuration, statistics, metrics. What changes the
server (loading and unloading) does not exist, for it would concern one replica of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from serving.errors import InvalidInput, ServingError, TooLarge, Unsupported
from serving.grpc import methods as grpc_methods
from serving.http import coding
from serving.http.routes import Kind, Route, Routes
from serving.protocols import binary, classification, grpc, v2
from serving.requests import Request, Response
from serving.scheduling import ModelQueue, Result
from serving.service import Service
from serving.telemetry import metrics
from serving.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

METHODS = frozenset(grpc.METHODS) - {"RepositoryModelLoad", "RepositoryModelUnload"}
"""The gRPC methods that are served."""
_JSON = "application/json"
_OCTETS = "application/octet-stream"

Header = Callable[[str], str | None]


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Answering:
    """Answers for the models of ``service``."""

    def __init__(self, service: Service, counted: Metrics, max_request_bytes: int, identity: Mapping[str, str]) -> None:
        self.service = service
        self.identity = dict(identity)
        self.in_work = 0
        """Requests that are not answered yet."""
        self._metrics = counted
        self._max_bytes = max_request_bytes
        self._routes = Routes()

    async def http(self, method: str, path: str, header: Header, body: AsyncIterator[bytes]) -> Answer:
        """The answer to an HTTP request; errors are answers too."""
        with self._working():
            try:
                route = self._routes.find(method.encode(), path.encode("latin-1"))
                if route is None:
                    raise UnknownPath(
                        f"{method} {path[:200]} is nothing that is answered here; GET /v2 says who answers"
                    )
                answer = await self._http(route, header, body)
            except Exception as error:
                refused = _told(error)
                answer = _json(refused.http, {"error": str(refused)})
                if refused.retry_after_s is not None:
                    answer.headers["retry-after"] = str(math.ceil(refused.retry_after_s))
            answer.headers.update(self.identity)
            return answer

    async def grpc(self, method: str, payload: bytes, header: Header) -> Any:
        """The message that answers a unary call; ServingError with its code."""
        with self._working():
            try:
                if len(payload) > self._max_bytes:
                    raise TooLarge(
                        f"the gRPC message has {len(payload)} bytes, the limit of this server is {self._max_bytes}"
                    )
                if method == "ModelInfer":
                    return await self._infer_grpc(grpc.parse(grpc.InferRequest, payload), header)
                message = grpc.parse(grpc_methods.request_class(method), payload)
                grpc_methods.addressed(message, header)
                return await grpc_methods.call(self.service, method, message)
            except Exception as error:
                raise _told(error) from error

    async def grpc_stream(self, payloads: AsyncIterator[bytes], header: Header) -> AsyncIterator[Any]:
        """A message that answers each message of a stream; errors are answers, too."""
        with self._working():
            async for payload in payloads:
                asked = ""
                try:
                    message = grpc.parse(grpc.InferRequest, payload)
                    asked = message.id
                    told = grpc.streamed(await self._infer_grpc(message, header), final=True)
                except Exception as error:
                    told = grpc.StreamInferResponse(
                        error_message=str(_told(error)), infer_response=grpc.InferResponse(id=asked)
                    )
                yield told

    async def leave(self, within_s: float, quiet_s: float) -> None:
        """Not ready from now on; returns once nothing was in work for ``quiet_s``, or after ``within_s``."""
        self.service.draining = True
        end, since = time.monotonic() + within_s, time.monotonic()
        while (now := time.monotonic()) < min(end, since + quiet_s):
            since = now if self.in_work else since
            await asyncio.sleep(quiet_s / 10)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        self.in_work += 1
        try:
            yield
        finally:
            self.in_work -= 1

    async def _http(self, route: Route, header: Header, body: AsyncIterator[bytes]) -> Answer:
        service = self.service
        match route.kind:
            case Kind.V2_INFER:
                return await self._infer(route, header, body)
            case Kind.LIVE:
                return _json(200, {"live": True})
            case Kind.READY:
                ready = service.is_ready()
                return _json(200 if ready else 503, {"ready": ready, "live": True})
            case Kind.SERVER:
                return _json(200, service.metadata())
            case Kind.MODELS:
                return _json(200, {"models": service.model_names()})
            case Kind.MODEL:
                return _json(200, service.model_metadata(route.model, route.version))
            case Kind.MODEL_CONFIG:
                return _json(200, service.model_config(route.model, route.version))
            case Kind.STATISTICS | Kind.MODEL_STATISTICS:
                return _json(200, await service.statistics(route.model, route.version))
            case Kind.MODEL_READY:
                service.models.find(route.model, route.version)
                return _json(200, {"name": route.model, "ready": True})
            case Kind.METRICS:
                return Answer(200, {"content-type": metrics.CONTENT_TYPE}, self._metrics.text().encode())
        raise Unsupported("Ray Serve is not asked so here; serve the model with the runtime onnxruntime")

    async def _infer(self, route: Route, header: Header, body: AsyncIterator[bytes]) -> Answer:
        queue = self.service.models.find(route.model, route.version)
        with _counted(queue):
            if (refused := queue.refusal()) is not None:
                raise refused
            said = header(binary.HEADER.decode())
            length = None if said is None else binary.header_length(said.encode("latin-1"))
            whole = await self._whole(header("content-encoding") or "", body)
            if length == 0:
                request = v2.decode_raw(whole, queue.signature)
            else:
                request = v2.decode(whole, length, queue.signature)
            packed, length = v2.encode(await _computed(queue, request), request)
        if length is None:
            headers = {"content-type": _JSON}
        else:
            headers = {"content-type": _OCTETS, binary.HEADER.decode(): str(length)}
        compressed = coding.accepted(header("accept-encoding") or "")
        if compressed is not None and len(packed) >= coding.MIN_COMPRESSED:
            packed = coding.pack(packed, compressed)
            headers |= {"content-encoding": compressed, "vary": "accept-encoding"}
        return Answer(200, headers, packed)

    async def _whole(self, encoding: str, body: AsyncIterator[bytes]) -> bytes | bytearray:
        whole = bytearray()
        async for part in body:
            whole += part
            if len(whole) > self._max_bytes:
                raise TooLarge(f"the request has more than {self._max_bytes} bytes, the limit of this server")
        if encoding.strip().lower() in ("", "identity"):
            return whole
        return coding.unpack(whole, encoding.strip().lower(), self._max_bytes)

    async def _infer_grpc(self, message: Any, header: Header) -> Any:
        queue = grpc_methods.queue(self.service, message, header)
        with _counted(queue):
            if (refused := queue.refusal()) is not None:
                raise refused
            return grpc.encode(await _computed(queue, grpc.decode(message, queue.signature)))


class UnknownPath(InvalidInput):
    """No such path, or none with this method."""

    http = 404


@contextlib.contextmanager
def _counted(queue: ModelQueue) -> Iterator[None]:
    received = time.perf_counter()
    try:
        yield
    except ServingError as error:
        queue.counters.failed(error.reason, time.perf_counter() - received)
        raise
    queue.counters.succeeded(time.perf_counter() - received)


async def _computed(queue: ModelQueue, request: Request) -> Response:
    """The answer to a request, classified where it asks so; whoever goes away leaves the queue."""
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def settle(job: object, result: Result) -> None:
        if not done.done():
            done.set_result(result)

    job = queue.submit(request, time.perf_counter(), None, settle)
    try:
        result = await done
    except asyncio.CancelledError:
        if job is not None:
            job.cancel()
        raise
    if isinstance(result, ServingError):
        raise result
    return classification.answered(result, request, queue.signature) if request.outputs else result


def _json(status: int, document: dict[str, Any]) -> Answer:
    return Answer(status, {"content-type": _JSON}, orjson.dumps(document))


def _told(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    _log.error("a request failed", exc_info=error)
    return ServingError("the server failed to answer this request; its log says why")
