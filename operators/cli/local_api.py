"""The API of ``penstock up``: the paths and answers of the Kubernetes API, for the three kinds alone.

It listens on the loopback interface and wants the token that stands in ``up.json``, so that no web page and
no other user of the machine can apply anything.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import fastapi
from fastapi.responses import JSONResponse, StreamingResponse

from operators.api.base import APIObject
from operators.api.commands import COMMANDS
from operators.api.errors import Conflict, InvalidObject, NotFound, OperatorError
from operators.api.kinds import KINDS, parse
from operators.api.plan import Key
from operators.cli import kinds
from operators.store.sqlite import Outcome, SqliteStore

Logs = Callable[[Key, bool], AsyncIterator[bytes]]
"""What the servers of a Model wrote; with True, also what they go on to write."""

_REASONS: dict[type[Exception], tuple[int, str]] = {
    InvalidObject: (422, "Invalid"),
    NotFound: (404, "NotFound"),
    Conflict: (409, "Conflict"),
}


class _Route(Protocol):
    async def __call__(self, request: fastapi.Request) -> fastapi.Response: ...


def app(store: SqliteStore, logs: Logs, token: str) -> fastapi.FastAPI:
    """The application over ``store``; every request needs ``token``."""
    api = fastapi.FastAPI(title="Penstock, local mode", docs_url=None, redoc_url=None, openapi_url=None)

    @api.middleware("http")
    async def authorize(request: fastapi.Request, go_on: Any) -> fastapi.Response:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _status(401, "Unauthorized", "the token of up.json is needed in the header Authorization")
        response: fastapi.Response = await go_on(request)
        return response

    @api.exception_handler(OperatorError)
    async def refuse(_: fastapi.Request, error: Exception) -> fastapi.Response:
        code, reason = _REASONS.get(type(error), (503, "ServiceUnavailable"))
        return _status(code, reason, str(error))

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/logs/{namespace}/{name}")
    async def read_logs(namespace: str, name: str, follow: bool = False) -> fastapi.Response:
        key = Key("Model", namespace, name)
        await _found(store, key)
        return StreamingResponse(logs(key, follow), media_type="text/plain")

    for kind in kinds.KINDS:
        _add(api, store, kind)
    return api


def _add(api: fastapi.FastAPI, store: SqliteStore, kind: kinds.Kind) -> None:
    async def list_(request: fastapi.Request) -> fastapi.Response:
        found = await store.list(kind.kind, request.path_params.get("namespace"))
        items = [_wire(object_) for object_ in found]
        return JSONResponse({"apiVersion": "penstock.dev/v1alpha1", "kind": f"{kind.kind}List", "items": items})

    async def get(request: fastapi.Request) -> fastapi.Response:
        return JSONResponse(_wire(await _found(store, _key(kind, request))))

    async def patch(request: fastapi.Request) -> fastapi.Response:
        key = _key(kind, request)
        body = _json(await request.body())
        is_merge = request.headers.get("content-type", "").partition(";")[0] == kinds.MERGE
        if is_merge:
            body = _merged(_wire(await _found(store, key)), body)
        wanted = parse(body)
        in_body = Key(wanted.kind, key.namespace and wanted.metadata.namespace, wanted.metadata.name)
        if in_body != key:
            raise InvalidObject(f"the path names {key}, the object is {in_body}: make them the same")
        outcome, now = await store.apply(wanted, () if is_merge else COMMANDS)
        return JSONResponse(_wire(now), 201 if outcome is Outcome.CREATED else 200)

    async def delete(request: fastapi.Request) -> fastapi.Response:
        key = _key(kind, request)
        await _found(store, key)
        await store.delete(key)
        return JSONResponse({"apiVersion": "v1", "kind": "Status", "status": "Success"})

    collections = [kind.path(None)] + ([kind.path("{namespace}")] if kind.namespaced else [])
    one = kind.path("{namespace}", "{name}")
    verbs: tuple[tuple[str, str, _Route], ...] = (
        *((path, "GET", list_) for path in collections),
        (one, "GET", get),
        (one, "PATCH", patch),
        (one, "DELETE", delete),
    )
    for path, method, verb in verbs:
        api.add_api_route(path, verb, methods=[method], response_model=None)


def _key(kind: kinds.Kind, request: fastapi.Request) -> Key:
    return Key(kind.kind, request.path_params.get("namespace", ""), request.path_params["name"])


async def _found(store: SqliteStore, key: Key) -> APIObject:
    found = await store.get(key)
    if found is None:
        raise NotFound(f"{key} does not exist; `penstock get {KINDS[key.kind].plural}` lists those that do")
    return found


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise InvalidObject(f"the body is not JSON: {error}") from error


def _merged(value: object, change: object) -> object:
    """``value`` with a merge patch (RFC 7396)."""
    if not isinstance(change, dict):
        return change
    merged = dict(value) if isinstance(value, dict) else {}
    for key, new in change.items():
        if new is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), new)
    return merged


def _wire(object_: APIObject) -> dict[str, Any]:
    data = object_.to_dict()
    if not type(object_).namespaced:
        del data["metadata"]["namespace"]
    return data


def _status(code: int, reason: str, message: str) -> fastapi.Response:
    failure = {"status": "Failure", "message": message, "reason": reason, "code": code}
    return JSONResponse({"apiVersion": "v1", "kind": "Status", **failure}, code)
