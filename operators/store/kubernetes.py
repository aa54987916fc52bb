"""The Kubernetes API as a store: reads from caches, status written by server-side apply with the version read."""

from __future__ import annotations

import dataclasses

from operators.api.base import APIObject
from operators.api.errors import Conflict, InvalidObject
from operators.api.kinds import parse
from operators.api.plan import Key
from operators.api.status import EndpointStatus, ModelStatus
from operators.runtime import errors
from operators.runtime.cache import Cache
from operators.runtime.connection import Connection


@dataclasses.dataclass(frozen=True)
class KubernetesStore:
    """``caches`` by kind: Model, Endpoint, ServingRuntime."""

    connection: Connection
    caches: dict[str, Cache]

    async def get(self, key: Key) -> APIObject | None:
        """See ``Store.get``."""
        obj = self.caches[key.kind].get(key.namespace, key.name)
        return None if obj is None else parse(obj)

    async def list(self, kind: str, namespace: str | None = None) -> list[APIObject]:
        """See ``Store.list``."""
        found = []
        for obj in self.caches[kind].list(namespace):
            try:
                found.append(parse(obj))
            except InvalidObject:
                continue
        return found

    async def update_status(self, key: Key, status: ModelStatus | EndpointStatus) -> None:
        """See ``Store.update_status``."""
        cache = self.caches[key.kind]
        obj = cache.get(key.namespace, key.name)
        if obj is None or obj.get("status") == status.to_dict():
            return
        try:
            await self.connection.patch_status(cache.resource, obj, status.to_dict())
        except errors.Conflict as error:
            raise Conflict(f"{key} changed while it was worked on") from error
