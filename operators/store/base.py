"""The seam between reconciling and storage: two implementations, ``sqlite`` and ``kubernetes``."""

from __future__ import annotations

from typing import Protocol

from operators.api.base import APIObject
from operators.api.plan import Key
from operators.api.status import EndpointStatus, ModelStatus


class Store(Protocol):
    """Typed objects by key. Reads may be served from a cache and may be stale."""

    async def get(self, key: Key) -> APIObject | None:
        """The object, or None if there is none.

        Raises:
            InvalidObject: it is stored but does not parse.
        """

    async def list(self, kind: str, namespace: str | None = None) -> list[APIObject]:
        """All objects of a kind, in one namespace or in all; those that do not parse are left out."""

    async def update_status(self, key: Key, status: ModelStatus | EndpointStatus) -> None:
        """Write ``status`` unless it is what is stored already.

        Raises:
            Conflict: the object changed since it was read.
            Unreachable: the storage does not answer.
        """
