"""Which requests the protocol class answers itself, read from method and target."""

from __future__ import annotations

import enum
import re
import urllib.parse
from typing import NamedTuple

from serving import contract


class Kind(enum.Enum):
    """What a request asks for."""

    V2_INFER = enum.auto()
    V1_PREDICT = enum.auto()
    GENERATE = enum.auto()
    GENERATE_STREAM = enum.auto()
    GRPC = enum.auto()
    GRPC_HEAD = enum.auto()
    LIVE = enum.auto()
    READY = enum.auto()
    SERVER = enum.auto()
    MODELS = enum.auto()
    STATISTICS = enum.auto()
    """Of all models; ``MODEL_STATISTICS`` are of one."""
    MODEL = enum.auto()
    MODEL_CONFIG = enum.auto()
    MODEL_STATISTICS = enum.auto()
    MODEL_READY = enum.auto()
    METRICS = enum.auto()
    REQUESTS = enum.auto()
    SHADOW = enum.auto()
    UNREADABLE = enum.auto()
    """What stands where a request was expected and cannot be read."""


class Route(NamedTuple):
    """A request's kind, and the model, version or gRPC method it names."""

    kind: Kind
    model: str = ""
    version: str = ""
    method: str = ""
    bodiless: bool = False
    """HEAD: the answer ends with its headers."""


_GRPC_PREFIX = f"/{contract.GRPC_SERVICE}/"
_REMEMBERED = 1024
_POST = (b"POST",)
_GET = (b"GET", b"HEAD")
_ORIGIN = re.compile(rb"^[a-z][a-z0-9+.-]*://[^/?]*", re.IGNORECASE)


class Routes:
    """Finds routes, remembering the last targets seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Route | None] = {}

    def find(self, method: bytes, target: bytes) -> Route | None:
        """The route of a request; None when the application is to answer it."""
        key = (method, target)
        try:
            return self._known[key]
        except KeyError:
            pass
        route = _parse(method, target)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        if len(target) <= 512:
            self._known[key] = route
        return route


def origin_form(target: bytes) -> bytes:
    """A target without scheme and host, as most clients send it."""
    if target.startswith(b"/"):
        return target
    path = _ORIGIN.sub(b"", target)
    return path if path and path[:1] != b"?" else b"/" + path


def _parse(method: bytes, target: bytes) -> Route | None:
    path = origin_form(target).split(b"?", 1)[0].decode("latin-1")
    if method in _GET:
        path = path.removesuffix("/")
    route, methods = _named(path)
    if route is None or method not in methods:
        return None
    return route._replace(bodiless=True) if method == b"HEAD" else route


def _named(path: str) -> tuple[Route | None, tuple[bytes, ...]]:
    """What a path names, and the methods that it takes."""
    parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
    match parts:
        case ["v2", "models", model, "infer"] if model:
            return Route(Kind.V2_INFER, model), _POST
        case ["v2", "models", model, "versions", version, "infer"] if model:
            return Route(Kind.V2_INFER, model, version), _POST
        case ["v2", "models", model, "generate" | "generate_stream" as last] if model:
            return Route(_GENERATE[last], model), _POST
        case ["v2", "models", model, "versions", version, "generate" | "generate_stream" as last] if model:
            return Route(_GENERATE[last], model, version), _POST
        case ["v1", "models", last] if last.endswith(":predict"):
            return Route(Kind.V1_PREDICT, last.removesuffix(":predict")), _POST
        case ["v1", "models", model, "versions", last] if model and last.endswith(":predict"):
            return Route(Kind.V1_PREDICT, model, last.removesuffix(":predict")), _POST
        case ["v2", "models", "stats"]:
            return Route(Kind.STATISTICS), _GET
        case ["v2", "models", model] if model:
            return Route(Kind.MODEL, model), _GET
        case ["v2", "models", model, "versions", version] if model and version:
            return Route(Kind.MODEL, model, version), _GET
        case ["v2", "models", model, "ready" | "config" | "stats" as last] if model:
            return Route(_OF_MODEL[last], model), _GET
        case ["v2", "models", model, "versions", version, "ready" | "config" | "stats" as last] if model:
            return Route(_OF_MODEL[last], model, version), _GET
    if path == contract.GRPC_HEAD_PATH:
        return Route(Kind.GRPC_HEAD), _POST
    if path.startswith(_GRPC_PREFIX):
        return Route(Kind.GRPC, method=path.removeprefix(_GRPC_PREFIX)), _POST
    kind = _FIXED.get(path)
    return (None if kind is None else Route(kind)), _GET


_OF_MODEL = {"ready": Kind.MODEL_READY, "config": Kind.MODEL_CONFIG, "stats": Kind.MODEL_STATISTICS}
_GENERATE = {"generate": Kind.GENERATE, "generate_stream": Kind.GENERATE_STREAM}
_FIXED = {
    "/v2": Kind.SERVER,
    "/v2/models": Kind.MODELS,
    contract.LIVE_PATH: Kind.LIVE,
    contract.READY_PATH: Kind.READY,
    contract.METRICS_PATH: Kind.METRICS,
    contract.REQUESTS_PATH: Kind.REQUESTS,
    contract.SHADOW_PATH: Kind.SHADOW,
}
