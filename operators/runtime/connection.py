"""The few requests an operator makes, on raw objects of any resource.

Transport, TLS and credentials are those of the official client; the JSON is read here, because the client's
own watch turns what a sick API server sends into exceptions that end it. Every request passes the throttle.
Every write passes the fence: one that no longer leads writes nothing, even when it was paused just before the
write. 429 and 503 answers that name a time to come back are waited out, with up to a tenth more so that many
clients do not come back together; a 401 is answered once with credentials read anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration

from operators.runtime import credentials, errors
from operators.runtime.credentials import Source
from operators.runtime.resource import Object, Resource
from operators.runtime.throttle import Throttle

FIELD_MANAGER = "penstock"

CONNECT_TIMEOUT_S = 5
REQUEST_TIMEOUT_S = 30
PATIENCE_S = 60
"""How long one request may wait in all for an API server that asks to come back later."""
MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Listing:
    """All objects at one moment, and the resource version of that moment."""

    items: list[Object]
    resource_version: str


@dataclasses.dataclass(frozen=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


def always() -> bool:
    """The fence of somebody who needs no lease."""
    return True


class Connection:
    """A connection pool to one API server under one identity.

    Raises, from every request:
        ApiError: the API server says no.
        Unreachable: it does not answer in time.
        Garbled: something answers that is no API server.
        Fenced: a write while ``may_write`` says no.
    """

    def __init__(
        self,
        source: Source,
        configuration: Configuration,
        throttle: Throttle,
        random: random.Random,
        may_write: Callable[[], bool] = always,
    ) -> None:
        self._source = source
        self._client = ApiClient(configuration)
        self._authorization = credentials.authorization(configuration)
        self._reloading = asyncio.Lock()
        self._throttle = throttle
        self._random = random
        self._may_write = may_write

    @classmethod
    async def open(
        cls,
        source: Source,
        throttle: Throttle,
        random: random.Random,
        may_write: Callable[[], bool] = always,
    ) -> Self:
        """Read the configuration; the first request connects."""
        return cls(source, await source.configuration(), throttle, random, may_write)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object as stored, never from a cache."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, label_selector: str = "", page: int = 500
    ) -> Listing:
        """All objects, fetched ``page`` at a time from one consistent snapshot."""
        # The items of a list do not say what they are.
        named = {"apiVersion": resource.api_version, "kind": resource.kind}
        items: list[Object] = []
        query = {"limit": str(page)} | ({"labelSelector": label_selector} if label_selector else {})
        while True:
            body = await self._call("GET", resource.path(namespace), query)
            try:
                items += (named | obj for obj in body["items"])
                query["continue"] = body["metadata"].get("continue", "")
                if not query["continue"]:
                    return Listing(items, body["metadata"]["resourceVersion"])
            except (KeyError, TypeError, AttributeError) as error:
                raise errors.Garbled(f"GET {resource.path(namespace)}: the answer is no list") from error

    async def watch(
        self,
        resource: Resource,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        timeout_s: int = 30,
        silence_s: float = 35,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after ``resource_version``, until the API server ends the watch after ``timeout_s``.

        Raises:
            Gone: the resource version is too old, said by HTTP or within the stream.
            Unreachable: the stream broke off, or brought no byte for ``silence_s``.
            Garbled: a line that is no event.
        """
        path = resource.path(namespace)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        } | ({"labelSelector": label_selector} if label_selector else {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        response = await self._send("GET", path, query, timeout=timeout)
        buffer = bytearray()
        try:
            async for chunk in response.content.iter_any():
                buffer += chunk
                *lines, rest = buffer.split(b"\n")
                for line in lines:
                    yield _event(f"WATCH {path}", line)
                buffer = rest
                if len(buffer) > MAX_EVENT_BYTES:
                    raise errors.Garbled(f"WATCH {path}: an event of more than {MAX_EVENT_BYTES} bytes")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Unreachable(f"WATCH {path}: {error!r}") from error
        finally:
            response.close()
        if buffer:
            raise errors.Unreachable(f"WATCH {path}: the stream ended within an event")

    async def apply(self, resource: Resource, obj: Object) -> Object:
        """Server-side apply: make the fields in ``obj`` so and ours, and leave all others alone."""
        namespace, name = obj["metadata"].get("namespace"), obj["metadata"]["name"]
        return await self._apply(resource.path(namespace, name), obj)

    async def patch_status(self, resource: Resource, obj: Object, status: Object) -> Object:
        """Make ``status`` the status of ``obj``, provided that it is still the version that was read.

        Raises:
            Conflict: it changed, or is another object of the same name by now.
        """
        metadata = obj["metadata"]
        kept = {k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion") if k in metadata}
        return await self._apply(
            resource.path(metadata.get("namespace"), metadata["name"]) + "/status",
            {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": kept, "status": status},
        )

    async def merge(self, resource: Resource, obj: Object, change: Object) -> Object:
        """Make the fields in ``change`` so and leave all others alone, whatever version ``obj`` has by now.

        Raises:
            Conflict: it is another object of the same name by now.
        """
        metadata = obj["metadata"]
        merged = {**change, "metadata": {**change.get("metadata", {}), "uid": metadata["uid"]}}
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, merged, "application/merge-patch+json")

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Raises Conflict where the object exists."""
        return await self._call("POST", resource.path(obj["metadata"].get("namespace")), body=obj)

    async def replace(self, resource: Resource, obj: Object) -> Object:
        """Raises Conflict where the object is not the version in ``obj``."""
        metadata = obj["metadata"]
        return await self._call("PUT", resource.path(metadata.get("namespace"), metadata["name"]), body=obj)

    async def delete(self, resource: Resource, obj: Object) -> None:
        """Delete exactly the version that was read, its dependents after it; one that is gone is fine.

        Raises:
            Conflict: it changed, or is another object of the same name by now.
        """
        metadata = obj["metadata"]
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": "Background",
        }
        try:
            await self._call("DELETE", resource.path(metadata.get("namespace"), metadata["name"]), body=body)
        except errors.NotFound:
            return

    async def _apply(self, path: str, obj: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, obj, "application/apply-patch+yaml")

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        response = await self._send(method, path, query or {}, body, content_type, timeout)
        text = await _read(f"{method} {path}", response)
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise errors.Garbled(f"{method} {path}: answered {text[:80]!r}, which is no JSON") from error
        if not isinstance(answer, dict):
            raise errors.Garbled(f"{method} {path}: answered {text[:80]!r}, which is no object")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        what = f"{method} {path}"
        url = self._client.configuration.host + path + ("?" + urlencode(query) if query else "")
        waited_s = 0.0
        reloaded = False
        while True:
            await self._throttle.take()
            if method != "GET" and not self._may_write():
                raise errors.Fenced(f"{what}: held back, since this process does not lead")
            used = self._authorization
            headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "penstock"}
            if used:
                headers["Authorization"] = used
            try:
                answer = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                    method, url, headers=headers, body=body, _request_timeout=timeout
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise errors.Unreachable(f"{what}: {error!r}") from error
            response: aiohttp.ClientResponse = answer.response
            if response.status < 400:
                return response
            refusal = errors.refused(what, response.status, _status(await _read(what, response)))
            if response.status == 401 and not reloaded:
                reloaded = True
                if await self._reload(used):
                    continue
            retry_s = _retry_after_s(response)
            if retry_s is None or waited_s + retry_s > PATIENCE_S:
                raise refusal
            retry_s *= self._random.uniform(1.0, 1.1)
            waited_s += retry_s
            await asyncio.sleep(retry_s)

    async def _reload(self, refused: str | None) -> bool:
        """Whether there are other credentials than the refused ones now."""
        async with self._reloading:
            if self._authorization == refused:
                self._authorization = credentials.authorization(await self._source.configuration())
            return self._authorization != refused


async def _read(what: str, response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise errors.Unreachable(f"{what}: {error!r}") from error


def _status(text: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"message": text[:200].decode(errors="replace")}


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if response.status in (429, 503) and value.isdecimal() else None


def _event(what: str, line: bytes | bytearray) -> WatchEvent:
    try:
        event = json.loads(line)
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            raise errors.refused(what, int(obj.get("code", 500)), obj)
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            raise ValueError(kind)
        obj["metadata"]["resourceVersion"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.Garbled(f"{what}: {bytes(line[:80])!r} is no watch event") from error
    return WatchEvent(kind, obj)
