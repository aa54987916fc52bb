"""A real receiver on loopback, and what becomes of decisions on their way there."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from operators.api.errors import OperatorError
from operators.api.plan import Event, Key
from operators.api.status import ModelStatus, RolloutStatus
from operators.runtime import webhook
from operators.runtime.backoff import Backoff
from operators.runtime.webhook import Receiver, Webhook

KEY = Key("Model", "team", "digits")
AT = "2026-01-02T03:04:05Z"
ROLLOUT = RolloutStatus(
    revision="5e6f",
    stable="1a2b",
    began=AT,
    state="Promoted",
    step=2,
    steps=2,
    target=10_000,
    weight=10_000,
    observed=9_995,
    since=AT,
    message="it is",
)
STATUS = ModelStatus(rollout=ROLLOUT)
DEADLINE_S = 20
GAUGE = "# TYPE penstock_webhook_failing gauge"


def event(step: int = 2, reason: str = "Promoted") -> Event:
    return Event(f"digits.5e6f.{AT}.{step}.{reason}", "Rollout", reason, "revision 5e6f is promoted")


class Endpoint:
    """Answers by ``answers``, the last of them for ever, and keeps what came."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.came: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def handle(self, request: web.Request) -> web.Response:
        self.came.append(json.loads(await request.read()))
        self.headers.append(dict(request.headers))
        await self.open.wait()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"} if status == 302 else {})

    @property
    def ids(self) -> list[str]:
        return [one["id"].split(".")[3] for one in self.came]


@contextlib.asynccontextmanager
async def listening(endpoint: Endpoint, bound: socket.socket) -> AsyncIterator[None]:
    application = web.Application()
    application.router.add_post("/hook", endpoint.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.SockSite(runner, bound).start()
    try:
        yield
    finally:
        endpoint.open.set()
        await runner.cleanup()


@pytest.fixture
def bound() -> socket.socket:
    """A port that is ours, on which nobody listens yet."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def telling(
    bound: socket.socket,
    token: str = "",
    backoff: tuple[float, float] = (0.001, 0.002),
    say: Callable[[str], None] = lambda line: None,
) -> Webhook:
    receiver = Receiver(f"http://127.0.0.1:{bound.getsockname()[1]}/hook", token)
    at = datetime.datetime(2026, 1, 2, 3, 4, 6, tzinfo=datetime.UTC)
    return Webhook(receiver, Backoff(*backoff, random.Random(0)), lambda: at, say)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_decision_comes_as_a_cloud_event_with_the_rollout_as_it_is(bound: socket.socket) -> None:
    endpoint, told = Endpoint(204), telling(bound, "secret")
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(), STATUS)
        await told.empty()
    assert endpoint.came == [
        {
            "specversion": "1.0",
            "type": "dev.penstock.rollout.promoted",
            "source": "/apis/penstock.dev/v1alpha1/namespaces/team/models/digits",
            "subject": "5e6f",
            "id": f"digits.5e6f.{AT}.2.Promoted",
            "time": "2026-01-02T03:04:06Z",
            "datacontenttype": "application/json",
            "data": {
                "message": "revision 5e6f is promoted",
                "rollout": {
                    "revision": "5e6f",
                    "stable": "1a2b",
                    "began": AT,
                    "state": "Promoted",
                    "step": 2,
                    "steps": 2,
                    "target": 100.0,
                    "weight": 100.0,
                    "observed": 99.95,
                    "reached": False,
                    "since": AT,
                    "mirroredSince": "",
                    "message": "it is",
                    "next": "",
                    "nextAt": "",
                    "verdict": "",
                    "detection": "",
                },
            },
        }
    ]
    (headers,) = endpoint.headers
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("reason", "type_"),
    [("RolloutBegun", "begun"), ("RolloutStep", "step"), ("Promoted", "promoted"), ("RolledBack", "rolledback")],
)
def test_types_are_named_after_what_was_decided(reason: str, type_: str) -> None:
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    assert webhook.cloud_event(KEY, event(0, reason), STATUS, now)["type"] == f"dev.penstock.rollout.{type_}"


async def test_a_receiver_that_is_down_at_first_gets_everything_in_order(
    bound: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, told = Endpoint(200), telling(bound, backoff=(0.1, 0.2))
    async with webhook.telling(told):
        for step in range(3):
            told.tell(KEY, event(step), STATUS)
        await until(lambda: "failures=1" in caplog.text)
        assert f"no connection to 127.0.0.1:{bound.getsockname()[1]}: Connection refused" in caplog.text
        async with listening(endpoint, bound):
            await told.empty()
    assert (endpoint.ids, told.lost) == (["0", "1", "2"], 0)


async def test_a_receiver_that_answers_500_is_asked_again_with_the_same_id(bound: socket.socket) -> None:
    endpoint, told = Endpoint(500, 503, 429, 200), telling(bound)
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(0), STATUS)
        told.tell(KEY, event(1), STATUS)
        await told.empty()
    assert (endpoint.ids, told.lost) == (["0", "0", "0", "0", "1"], 0)


async def test_one_that_never_stops_answering_500_loses_that_event_alone_and_it_is_said_where(
    bound: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, told = Endpoint(*[500] * webhook.TRIES, 200), telling(bound)
    port = bound.getsockname()[1]
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(0), STATUS)
        told.tell(KEY, event(1), STATUS)
        await told.empty()
    assert (endpoint.ids, told.lost) == (["0"] * webhook.TRIES + ["1"], 1)
    (said,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert said == (
        f"webhook='dev.penstock.rollout.promoted' id='digits.5e6f.{AT}.0.Promoted' "
        f"url='http://127.0.0.1:{port}/hook' lost=1 error='it answers 500, 10 times'; "
        "make it answer 2xx, or set --webhook-url anew"
    )


async def test_a_receiver_that_takes_nothing_is_measured_and_told_of_once_until_it_takes_them_again(
    bound: socket.socket,
) -> None:
    said: list[str] = []
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/hook"
    endpoint, told = Endpoint(*[500] * webhook.TRIES, 503, 200), telling(bound, say=said.append)
    assert told.metrics().splitlines()[2::3] == ['penstock_webhook_events_total{result="delivered"} 0', GAUGE]
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(0), STATUS)
        await told.empty()
        assert told.metrics().splitlines()[3:] == [
            'penstock_webhook_events_total{result="lost"} 1',
            "# HELP penstock_webhook_failing 1 while the receiver did not take the last event it was sent.",
            GAUGE,
            "penstock_webhook_failing 1",
        ]
        told.tell(KEY, event(1), STATUS)
        await told.empty()
    assert said == [
        f"webhook {url} does not take events: it answers 500",
        f"webhook {url}: dev.penstock.rollout.promoted digits.5e6f.{AT}.0.Promoted is lost: it answers 500, 10 times",
        f"webhook {url} takes events again",
    ]
    lines = told.metrics().splitlines()
    assert ('penstock_webhook_events_total{result="delivered"} 1' in lines, lines[-1]) == (
        True,
        "penstock_webhook_failing 0",
    )


@pytest.mark.parametrize("status", [302, 401, 404])
async def test_what_sending_again_would_not_change_is_sent_once(bound: socket.socket, status: int) -> None:
    endpoint, told = Endpoint(status), telling(bound)
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(0), STATUS)
        await told.empty()
    assert (endpoint.ids, told.lost) == (["0"], 1)


async def test_nobody_waits_for_a_slow_receiver_and_only_so_much_is_kept_for_it(bound: socket.socket) -> None:
    endpoint, told = Endpoint(200), telling(bound)
    endpoint.open.clear()
    async with listening(endpoint, bound), webhook.telling(told):
        told.tell(KEY, event(0), STATUS)
        await until(lambda: len(endpoint.came) == 1)
        for step in range(1, webhook.MOST_WAITING + 3):
            told.tell(KEY, event(step), STATUS)
        assert (endpoint.ids, told.lost) == (["0"], 2)
        endpoint.open.set()
        await told.empty()
    assert endpoint.ids == [str(step) for step in range(webhook.MOST_WAITING + 1)]


@pytest.mark.parametrize("url", ["example.com/hook", "ftp://example.com", "https:///hook", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        Receiver(url)
    assert str(caught.value) == f"--webhook-url {url}: expected http://HOST/PATH or https://HOST/PATH"


def test_what_may_be_secret_in_a_url_is_not_said() -> None:
    assert str(Receiver("https://user:password@example.com:8443/hook?key=secret")) == "https://example.com:8443/hook"
