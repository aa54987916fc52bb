"""Decisions told to an HTTP endpoint of somebody else's, as CloudEvents 1.0 in structured JSON.

While this process lives each is told at least once, in order: an answer of 2xx takes it; no answer, 408, 429 and 5xx
have it sent again, up to ``TRIES`` times with growing waits, which is about five minutes. Any other answer means that
sending again would not help. Nobody waits for a delivery: what comes while ``MOST_WAITING`` wait is lost, with a line
in the log. A receiver tells repetitions by the event's ``id``, which is made of what was decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import os
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlparse

import aiohttp

from operators.api import announced
from operators.api.base import GROUP, VERSION
from operators.api.errors import OperatorError
from operators.api.plan import Event, Key
from operators.api.status import EndpointStatus, ModelStatus
from operators.runtime.backoff import Backoff

log = logging.getLogger(__name__)

TRIES = 10
MOST_WAITING = 1000
TIMEOUT_S = 10.0
"""How long a receiver may take to answer."""
LAST_S = 5.0
"""How long the end of the process waits for what is left."""
RETRY = (1.0, 60.0)
"""First and longest wait before sending again, in seconds."""

_PLURALS = {"Model": "models", "Endpoint": "endpoints"}


@dataclasses.dataclass(frozen=True)
class Receiver:
    """Who is told."""

    url: str
    token: str = ""
    """Sent as a bearer token; empty: none is."""

    def __post_init__(self) -> None:
        parsed = urlparse(self.url)
        if parsed.scheme not in ("http", "https") or not parsed.hostname:
            raise OperatorError(f"--webhook-url {self.url}: expected http://HOST/PATH or https://HOST/PATH")

    def __str__(self) -> str:
        """Without what may be a secret: a password, a query."""
        parsed = urlparse(self.url)
        return f"{parsed.scheme}://{parsed.netloc.rpartition('@')[2]}{parsed.path}"


class Webhook:
    """Tells ``receiver``; ``run`` delivers."""

    def __init__(
        self,
        receiver: Receiver,
        backoff: Backoff,
        now: Callable[[], datetime.datetime],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """``say`` is told, a line each, when the receiver stops taking events, loses one, and takes them again."""
        self._say = say
        self._trouble = ""
        self._receiver = receiver
        self._backoff = backoff
        self._now = now
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MOST_WAITING)
        self.lost = 0
        """Events that were given up."""
        self.delivered = 0

    def metrics(self) -> str:
        """What became of events, in Prometheus' text format."""
        return (
            "# HELP penstock_webhook_events_total Events by what became of them.\n"
            "# TYPE penstock_webhook_events_total counter\n"
            f'penstock_webhook_events_total{{result="delivered"}} {self.delivered}\n'
            f'penstock_webhook_events_total{{result="lost"}} {self.lost}\n'
            "# HELP penstock_webhook_failing 1 while the receiver did not take the last event it was sent.\n"
            "# TYPE penstock_webhook_failing gauge\n"
            f"penstock_webhook_failing {int(bool(self._trouble))}\n"
        )

    def tell(self, key: Key, event: Event, status: ModelStatus | EndpointStatus) -> None:
        """Have ``event`` delivered, with what ``status`` says of the rollout; never waits."""
        told = cloud_event(key, event, status, self._now())
        try:
            self._waiting.put_nowait(told)
        except asyncio.QueueFull:
            self._give_up(told, f"{MOST_WAITING} others wait already")

    async def run(self) -> None:
        """Deliver until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                told = await self._waiting.get()
                try:
                    await self._deliver(session, told)
                finally:
                    self._waiting.task_done()

    async def empty(self) -> None:
        """Return when everything is delivered or given up."""
        await self._waiting.join()

    async def _deliver(self, session: aiohttp.ClientSession, told: dict[str, Any]) -> None:
        for failures in range(1, TRIES + 1):
            problem, helps = await self._sent(session, told)
            self._note(problem)
            if not problem:
                self.delivered += 1
                return
            if not helps or failures == TRIES:
                return self._give_up(told, f"{problem}, {failures} times" if failures > 1 else problem)
            delay_s = self._backoff.delay_s(failures)
            what = (told["type"], told["id"], str(self._receiver), failures, delay_s, problem)
            log.warning("webhook=%r id=%r url=%r failures=%d retry_s=%.1f error=%r", *what)
            await asyncio.sleep(delay_s)

    async def _sent(self, session: aiohttp.ClientSession, told: dict[str, Any]) -> tuple[str, bool]:
        """What went wrong, empty if nothing did, and whether sending again may help."""
        headers = {"Content-Type": "application/cloudevents+json", "User-Agent": "penstock"}
        if self._receiver.token:
            headers["Authorization"] = f"Bearer {self._receiver.token}"
        body = aiohttp.JsonPayload(told, content_type=headers["Content-Type"])
        try:
            async with session.post(self._receiver.url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except aiohttp.ClientConnectorError as error:
            found = error.os_error
            # Of a name that is not known it is a number of the resolver's.
            why = os.strerror(found.errno) if found.errno and found.errno > 0 else found.strerror
            return f"no connection to {error.host}:{error.port}: {why}", True
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return str(error) or f"no answer within {TIMEOUT_S:g} s", True
        if 200 <= status < 300:
            return "", False
        return f"it answers {status}", status in (408, 429) or status >= 500

    def _note(self, problem: str) -> None:
        if bool(problem) != bool(self._trouble):
            said = f"does not take events: {problem}" if problem else "takes events again"
            self._say(f"webhook {self._receiver} {said}")
        self._trouble = problem

    def _give_up(self, told: dict[str, Any], why: str) -> None:
        self.lost += 1
        self._say(f"webhook {self._receiver}: {told['type']} {told['id']} is lost: {why}")
        what = (told["type"], told["id"], str(self._receiver), self.lost, why)
        log.error("webhook=%r id=%r url=%r lost=%d error=%r; make it answer 2xx, or set --webhook-url anew", *what)


def cloud_event(key: Key, event: Event, status: ModelStatus | EndpointStatus, now: datetime.datetime) -> dict[str, Any]:
    """The document. Types are such as ``dev.penstock.rollout.begun``, ``.step``, ``.promoted``, ``.rolledback``."""
    rollout = status.rollout if isinstance(status, ModelStatus) else None
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{_PLURALS.get(key.kind, key.kind.lower())}/{key.name}"
    domain = ".".join(reversed(GROUP.split(".")))
    return {
        "specversion": "1.0",
        "type": f"{domain}.{event.action.lower()}.{event.reason.removeprefix(event.action).lower()}",
        "source": path,
        "subject": rollout.revision if rollout is not None else key.name,
        "id": event.name,
        "time": now.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {"message": event.note, **_of(status)},
    }


def _of(status: ModelStatus | EndpointStatus) -> dict[str, Any]:
    if isinstance(status, ModelStatus):
        return {"rollout": announced.rollout(status.rollout.to_dict() if status.rollout else {})}
    return {"experiment": announced.experiment(status.experiment.to_dict() if status.experiment else {})}


@contextlib.asynccontextmanager
async def telling(webhook: Webhook | None) -> AsyncIterator[None]:
    """Deliver within; what is left at the end gets ``LAST_S``. None: there is nobody to tell."""
    if webhook is None:
        yield
        return
    task = asyncio.create_task(webhook.run())
    try:
        yield
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(webhook.empty(), LAST_S)
        task.cancel()
