"""Leadership: one of several operators works, held by a Lease that it renews every 2 s.

A leader that cannot renew for 10 s stops working; the others wait until the Lease has not changed for 15 s.
Both are measured by monotonic clocks from what each process itself saw, so wrong wall clocks cost nothing:
the times written into the Lease are for people to read. The margin of 5 s is the fence. ``is_held`` turns
false by the clock alone, so a leader that was paused for half a minute and wakes up in the middle of a write
is told no by its connection before the write leaves, whether or not this module has run since.

The official client's ``leaderelection`` (version 37) has a Lease lock but is not used: an aiohttp connection
error or timeout raises through its ``run`` and leaves the work running unled; a renewal that hangs has five
minutes, not the renew deadline; deadlines are wall-clock times; renewTime is local time labelled UTC; and it
releases nothing on shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from operators.runtime import errors
from operators.runtime.connection import Connection
from operators.runtime.resource import Object, Resource

log = logging.getLogger(__name__)

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")

Spec = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds: others wait ``duration_s`` (whole seconds), a leader gives up after ``renew_s``."""

    duration_s: int = 15
    renew_s: float = 10
    retry_s: float = 2


STEADY = Timing()


@dataclasses.dataclass(frozen=True)
class Sighting:
    """A Lease's spec and when, by our clock, it was first seen to be just so."""

    spec: Spec
    at: float


def is_free(seen: Sighting, identity: str, now: float) -> bool:
    """Whether ``identity`` may write itself into the Lease."""
    holder = seen.spec.get("holderIdentity")
    if not holder or holder == identity:
        return True
    return now - seen.at >= float(seen.spec.get("leaseDurationSeconds") or STEADY.duration_s)


def claim(spec: Spec, identity: str, duration_s: int, at: datetime.datetime) -> Object:
    """The Lease's spec once ``identity`` has taken it over or renewed it."""
    time = at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    renewed = {"holderIdentity": identity, "leaseDurationSeconds": duration_s, "renewTime": time}
    if spec.get("holderIdentity") == identity:
        return {**spec, **renewed}
    transitions = spec.get("leaseTransitions", 0) + 1 if spec else 0
    return {**spec, **renewed, "acquireTime": time, "leaseTransitions": transitions}


class Lease:
    """One candidate. ``identity`` must be unlike that of any other process, a restarted one's included.

    ``connection`` must be one of its own: the fence is asked about other connections' writes, and a full
    throttle must not cost the leadership.
    """

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime],
        random: random.Random,
        timing: Timing = STEADY,
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._now = now
        self._random = random
        self._timing = timing
        self._seen: Sighting | None = None
        self._held_until = clock()

    def is_held(self) -> bool:
        """Whether this process leads at this very moment: the fence for its writes."""
        return self._clock() < self._held_until

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` whenever this process leads, until it returns or this is cancelled.

        ``work`` is cancelled when leadership is lost. On the way out the Lease is released, so that another
        candidate takes over on its next try.
        """
        try:
            while True:
                while not await self._attempt(self._timing.renew_s / 2):
                    await asyncio.sleep(self._timing.retry_s * self._random.uniform(1.0, 1.2))
                log.info("lease=%s/%s identity=%s leading=true", self._namespace, self._name, self._identity)
                if await self._lead(work):
                    return
                log.warning("lease=%s/%s identity=%s leading=false", self._namespace, self._name, self._identity)
        finally:
            await self._release()

    async def _lead(self, work: Callable[[], Awaitable[None]]) -> bool:
        """True when ``work`` came to its end, False when leadership was lost."""
        working = asyncio.ensure_future(work())
        try:
            while True:
                left_s = self._held_until - self._clock()
                await asyncio.wait({working}, timeout=min(self._timing.retry_s, left_s))
                if working.done():
                    await working
                    return True
                left_s = self._held_until - self._clock()
                if not await self._attempt(min(self._timing.renew_s / 2, left_s)) and not self.is_held():
                    return False
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def _attempt(self, timeout_s: float) -> bool:
        """Take or renew the Lease if it is ours to take."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._take()
        except errors.Conflict:
            return False  # another candidate was faster
        except (errors.ClusterError, TimeoutError) as error:
            log.warning("lease=%s/%s error=%r", self._namespace, self._name, str(error) or repr(error))
            return False

    async def _take(self) -> bool:
        began = self._clock()
        try:
            lease = await self._connection.get(LEASES, self._namespace, self._name)
        except errors.NotFound:
            spec = claim({}, self._identity, self._timing.duration_s, self._now())
            metadata = {"namespace": self._namespace, "name": self._name}
            await self._connection.create(
                LEASES,
                {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec},
            )
        else:
            spec = lease.get("spec") or {}
            if self._seen is None or self._seen.spec != spec:
                self._seen = Sighting(spec, self._clock())
            if not is_free(self._seen, self._identity, self._clock()):
                return False
            lease["spec"] = claim(spec, self._identity, self._timing.duration_s, self._now())
            await self._connection.replace(LEASES, lease)
        self._held_until = began + self._timing.renew_s
        return True

    async def _release(self) -> None:
        """Leave the Lease to others, if it is ours; where that fails it runs out by itself."""
        self._held_until = self._clock()
        with contextlib.suppress(errors.ClusterError, TimeoutError):
            async with asyncio.timeout(self._timing.retry_s):
                lease = await self._connection.get(LEASES, self._namespace, self._name)
                if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._connection.replace(LEASES, lease)
