"""Names in the Kubernetes API: which resource, which object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as JSON. Those handed out by a cache are shared: never change one."""


class ObjectKey(NamedTuple):
    """One object within a resource; ``namespace`` is empty for cluster-scoped ones."""

    namespace: str
    name: str


def key_of(obj: Object) -> ObjectKey:
    """Where an object is kept."""
    return ObjectKey(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def selector(labels: Mapping[str, str]) -> str:
    """The label selector of objects that carry all of ``labels``."""
    return ",".join(f"{label}={value}" for label, value in labels.items())


@dataclasses.dataclass(frozen=True)
class Resource:
    """A kind of object and where it lives; ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """URL path of the collection (of one namespace or of all), or of one object in it."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        return "/".join(parts)
