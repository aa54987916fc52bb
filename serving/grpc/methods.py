"""The unary gRPC methods other than ModelInfer, for both ways in which gRPC arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import json_format

from serving.contract import ALIAS_METADATA_KEY
from serving.errors import NotReady, UnknownModel, Unsupported
from serving.protocols import grpc
from serving.scheduling import ModelQueue
from serving.service import Service

Header = Callable[[str], str | None]


async def call(service: Service, method: str, message: Any) -> Any:
    """The answer to a method; Unsupported when there is no such method."""
    handler = _HANDLERS.get(method)
    if handler is None:
        raise unknown(method)
    _, answer = grpc.METHODS[method]
    return json_format.ParseDict(await handler(service, message), answer())


def addressed(message: Any, header: Header) -> Any:
    """``message`` with its model's own name, where the router says that the name in it stands for that model."""
    name, _, model = (header(ALIAS_METADATA_KEY) or "").partition("/")
    for field in ("model_name", "name"):
        if model and getattr(message, field, None) == name:
            setattr(message, field, model)
    return message


def queue(service: Service, message: Any, header: Header) -> ModelQueue:
    """The queue of the model that an inference asks for; an alias is looked for only where no model has its name."""
    try:
        return service.models.find(message.model_name, message.model_version)
    except UnknownModel:
        addressed(message, header)
        return service.models.find(message.model_name, message.model_version)


def request_class(method: str) -> Any:
    """The class of a method's request."""
    if method not in _HANDLERS:
        raise unknown(method)
    return grpc.METHODS[method][0]


def unknown(method: str) -> Unsupported:
    """The error for a method that is not served as a unary call."""
    return Unsupported(f"the method '{method}' is not known here")


async def _server_live(service: Service, message: Any) -> dict[str, Any]:
    return {"live": True}


async def _server_ready(service: Service, message: Any) -> dict[str, Any]:
    return {"ready": service.is_ready()}


async def _model_ready(service: Service, message: Any) -> dict[str, Any]:
    try:
        service.models.find(message.name, message.version)
    except NotReady:
        return {"ready": False}
    return {"ready": True}


async def _server_metadata(service: Service, message: Any) -> dict[str, Any]:
    return service.metadata()


async def _model_metadata(service: Service, message: Any) -> dict[str, Any]:
    return service.model_metadata(message.name, message.version)


async def _model_config(service: Service, message: Any) -> dict[str, Any]:
    return {"config": service.model_config(message.name, message.version)}


async def _statistics(service: Service, message: Any) -> dict[str, Any]:
    return await service.statistics(message.name, message.version)


async def _index(service: Service, message: Any) -> dict[str, Any]:
    return {"models": service.index(message.ready)}


async def _load(service: Service, message: Any) -> dict[str, Any]:
    await service.load(message.model_name, bool(message.parameters))
    return {}


async def _unload(service: Service, message: Any) -> dict[str, Any]:
    await service.unload(message.model_name)
    return {}


_HANDLERS: dict[str, Callable[[Service, Any], Awaitable[dict[str, Any]]]] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
    "ModelConfig": _model_config,
    "ModelStatistics": _statistics,
    "RepositoryIndex": _index,
    "RepositoryModelLoad": _load,
    "RepositoryModelUnload": _unload,
}
