"""A local copy of one resource that a list and an endless row of watches keep equal to the API server's.

The copy has to outlive whatever the API server, a proxy or the network does, so its loop ends only when it is
cancelled. What a failure means decides how it goes on:

- The stream merely ended (its time was up, it was cut, it fell silent): watch again from the last resource
  version; nothing can have been missed.
- Anything else (410 by HTTP or in the stream, 500 or 504 in the stream, a line that is no event): the
  version or the stream cannot be trusted, so list again and compare.
- Failures wait longer each time, up to half a minute, until an event arrives or a watch lives out its time.

A watch asks the API server to end it after 30 s, which it does on time even where nothing ever changes (a
bookmark just before is usual, not certain). So a working watch gives a sign of life every 30 s, before a load
balancer that cuts connections idle for 35 s does so, and ``contact`` older than a minute means that this copy is
blind. An open connection on which nothing comes is no sign of life.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from operators.runtime import errors
from operators.runtime.backoff import Backoff
from operators.runtime.connection import Connection, WatchEvent
from operators.runtime.resource import Object, ObjectKey, Resource, key_of

log = logging.getLogger(__name__)

Handler = Callable[[Object], None]
"""Told that an object is new, changed or gone (then as last seen). It must not block; it asks the cache for
what is, and never concludes from being called what happened."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a watch runs, and how long it may be silent before it counts as dead (more than it runs)."""

    watch_s: int = 30
    silence_s: float = 35
    absent_s: float = 10
    """How often to look whether a resource is served by now."""


STEADY = Timing()


class Cache:
    """All objects of ``resource``, in one namespace or in all, that match a label selector.

    One that is ``optional`` is empty, and in contact, while the API server does not serve its resource.
    """

    def __init__(
        self,
        connection: Connection,
        resource: Resource,
        backoff: Backoff,
        clock: Callable[[], float],
        namespace: str | None = None,
        label_selector: str = "",
        timing: Timing = STEADY,
        optional: bool = False,
    ) -> None:
        self.resource = resource
        self._connection = connection
        self._backoff = backoff
        self._clock = clock
        self._namespace = namespace
        self._label_selector = label_selector
        self._timing = timing
        self._optional = optional
        self._objects: dict[ObjectKey, Object] = {}
        self._handlers: list[Handler] = []
        self._served_handlers: list[Callable[[], None]] = []
        self._version: str | None = None
        self._failures = 0
        self._synced = asyncio.Event()
        self.contact: float = clock()
        """When it last knew the state of the server (or started), by ``clock``."""
        self.trouble = ""
        """The last failure, until the next contact."""
        self.is_served = True
        """Whether the API server knows the resource; told by the first list."""

    def __str__(self) -> str:
        return f"{self.resource} in {self._namespace or 'all namespaces'}"

    @property
    def synced(self) -> bool:
        """Whether it has ever been complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get(ObjectKey(namespace, name))

    def list(self, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Sequence[Object]:
        """Objects of one namespace or of all that carry all of ``labels``."""
        wanted = (labels or {}).items()
        return [
            obj
            for key, obj in self._objects.items()
            if namespace in (None, key.namespace) and wanted <= (obj["metadata"].get("labels") or {}).items()
        ]

    def on_change(self, handler: Handler) -> None:
        """Have ``handler`` called for every object, those already known included."""
        self._handlers.append(handler)
        for obj in tuple(self._objects.values()):
            handler(obj)

    def on_served(self, handler: Callable[[], None]) -> None:
        """Have ``handler`` called whenever ``is_served`` changes."""
        self._served_handlers.append(handler)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except errors.NotFound as error:
                self._version = None
                if self._optional:
                    self._take_all({})
                    self._serve(False)
                    await asyncio.sleep(self._timing.absent_s)
                else:
                    await self._wait(error)
            except errors.Unreachable as error:
                await self._wait(error)
            except Exception as error:
                # Whatever it was: a cache that gives up makes an operator blind for good.
                self._version = None
                if not isinstance(error, errors.ClusterError):
                    log.exception("cache=%r unexpected error", str(self))
                await self._wait(error)

    async def _list(self) -> None:
        listing = await self._connection.list(self.resource, self._namespace, self._label_selector)
        self._take_all({key_of(obj): _slim(obj) for obj in listing.items})
        self._version = listing.resource_version
        self._serve(True)

    def _take_all(self, found: dict[ObjectKey, Object]) -> None:
        changed = [
            obj
            for key, obj in found.items()
            if key not in self._objects or _version(self._objects[key]) != _version(obj)
        ]
        gone = [obj for key, obj in self._objects.items() if key not in found]
        self._objects = found
        self._in_contact()
        self._synced.set()
        self._tell(changed + gone)

    def _serve(self, is_served: bool) -> None:
        if is_served == self.is_served:
            return
        self.is_served = is_served
        log.info("cache=%r served=%s", str(self), str(is_served).lower())
        for handler in self._served_handlers:
            handler()

    async def _watch(self) -> None:
        assert self._version is not None
        began = self._clock()
        events = self._connection.watch(
            self.resource,
            self._version,
            self._namespace,
            self._label_selector,
            self._timing.watch_s,
            self._timing.silence_s,
        )
        async with contextlib.aclosing(events):
            async for event in events:
                self._failures = 0
                self._in_contact()
                self._take(event)
        if self._clock() - began < self._timing.watch_s - 1:
            raise errors.Unreachable(f"WATCH {self.resource}: ended early")
        self._failures = 0
        self._in_contact()

    def _take(self, event: WatchEvent) -> None:
        self._version = _version(event.object)
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            self._objects.pop(key_of(event.object), None)
        else:
            self._objects[key_of(event.object)] = _slim(event.object)
        self._tell([event.object])

    def _tell(self, objects: Iterable[Object]) -> None:
        for obj in objects:
            for handler in self._handlers:
                try:
                    handler(obj)
                except Exception:
                    log.exception("cache=%r key=%r handler failed", str(self), key_of(obj))

    def _in_contact(self) -> None:
        if self.trouble:
            log.info("cache=%r contact=true objects=%d", str(self), len(self._objects))
        self.contact = self._clock()
        self.trouble = ""

    async def _wait(self, error: Exception) -> None:
        self._failures += 1
        delay_s = self._backoff.delay_s(self._failures)
        self.trouble = str(error) or repr(error)
        if isinstance(error, errors.NotFound):
            self.trouble += f"; the cluster has no {self.resource}: install them, Penstock's by the chart penstock-crds"
        log.warning("cache=%r failures=%d retry_s=%.1f error=%r", str(self), self._failures, delay_s, self.trouble)
        await asyncio.sleep(delay_s)


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def _slim(obj: Object) -> Object:
    """Without the record of who set which field: half of an object's size, and nothing here reads it."""
    obj["metadata"].pop("managedFields", None)
    return obj
