"""The application that Serve deploys: replicas that hold one model each, in an engine and behind a queue of ours.

Requests share calls in our queue, not by ``serve.batch``: it knows which models may, and what fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from ray import serve
from ray.serve import Application
from ray.serve.grpc_util import RayServegRPCContext
from starlette.requests import Request
from starlette.responses import Response

from serving import settings
from serving.contract import DRAIN_TIMEOUT_S, REVISION_HEADER, VARIANT_HEADER
from serving.errors import ServingError
from serving.http.plane import Limits
from serving.models.repository import Repository
from serving.protocols import grpc as grpc_protocol
from serving.rayserve.answering import METHODS, Answering
from serving.scheduling import Admission
from serving.scheduling.answers import Answers
from serving.server import TICK_S
from serving.service import Service
from serving.telemetry.metrics import Metrics

_ANSWERS_BYTES = 64 * 2**20
_QUIET_S = 0.5
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def build(args: dict[str, str]) -> Application:
    """The application for a RayService or ``serve.run``.

    ``path`` is the model's, the same on every node; ``name``, ``settings`` (JSON), ``revision`` and ``variant`` may be
    left out. Each replica has a node of its own.
    """
    return _Model.bind(dict(args))


class Model:
    """A replica."""

    async def __init__(self, args: dict[str, str]) -> None:  # type: ignore[misc]
        logging.basicConfig(level=logging.INFO)
        limits, counted = Limits(), Metrics()
        self._models = Repository(
            [Path(args["path"])],
            args.get("name"),
            counted,
            settings.parse(args.get("settings", "{}"), "settings"),
            Admission(limits.max_requests, limits.max_held_bytes),
            answers=Answers(_ANSWERS_BYTES),
        )
        await self._models.start()
        named = {REVISION_HEADER: args.get("revision", ""), VARIANT_HEADER: args.get("variant", "")}
        identity = {header: value for header, value in named.items() if value}
        self._answering = Answering(Service(self._models), counted, limits.max_request_bytes, identity)
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            self._models.tick(time.perf_counter())
            await asyncio.sleep(TICK_S)

    def check_health(self) -> None:
        """Serve replaces a replica of which this raises."""
        if hung := self._models.hung():
            raise RuntimeError(hung)

    async def leave(self) -> None:
        """Answers what was begun, and is ready no more."""
        await self._answering.leave(DRAIN_TIMEOUT_S, _QUIET_S)

    async def __call__(self, request: Request) -> Response:
        """An HTTP request."""
        answer = await self._answering.http(
            request.method, request.scope["path"], request.headers.get, request.stream()
        )
        return Response(answer.body, answer.status, answer.headers)

    async def _unary(self, method: str, payload: bytes, context: RayServegRPCContext) -> Any:
        context.set_trailing_metadata([*context.trailing_metadata(), *self._answering.identity.items()])
        try:
            return await self._answering.grpc(method, payload, dict(context.invocation_metadata()).get)
        except ServingError as error:
            context.set_code(_CODES[error.grpc])
            context.set_details(str(error))
            return grpc_protocol.InferResponse()  # not sent, but Serve wants a message

    async def ModelStreamInfer(  # noqa: N802 (gRPC's name)
        self, payloads: AsyncIterator[bytes], grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """An answer for each message of a stream."""
        header = dict(grpc_context.invocation_metadata()).get
        async for answer in self._answering.grpc_stream(payloads, header):
            yield answer


def _method(name: str) -> Any:
    async def unary(self: Model, payload: bytes, grpc_context: RayServegRPCContext) -> Any:
        return await self._unary(name, payload, grpc_context)

    unary.__name__ = name
    return unary


for _name in METHODS - {"ModelStreamInfer"}:
    setattr(Model, _name, _method(_name))

_Model: Any = serve.deployment(
    # Beyond these our queue refuses; what Serve holds back, nobody is told of.
    max_ongoing_requests=2 * Limits().max_requests,
    max_constructor_retry_count=1,
    graceful_shutdown_timeout_s=DRAIN_TIMEOUT_S,
    health_check_period_s=5,
    ray_actor_options={"num_cpus": 0},
    logging_config={"enable_access_log": False},
)(Model)
