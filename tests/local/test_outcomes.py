"""Experiments and bandits end to end: clients ask and report through a real HAProxy, the planner sums up and decides.

Time is the planner's alone, so a minute of a bandit lasts as long as its requests.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from operators.api.endpoint import Endpoint
from operators.api.experiment import ExperimentStatus
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Arm, Counts, Observation, Route, Split
from operators.api.status import EndpointStatus
from operators.planning import endpoints
from operators.router.agent import Router
from operators.router.collecting import BATCH
from operators.router.configuration import Listen
from operators.router.table import successor
from serving.contract import REQUEST_ID_HEADER
from tests.rig.backends import DEADLINE_S, STOP_TIMEOUT_S, Backend, backend, reloads, router

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT_ONCE = 16
USERS = {"assignment": {"header": "x-user"}}


def model(name: str) -> Model:
    spec = {"source": {"uri": "s3://models/a.onnx", "digest": "sha256:" + "a" * 64}}
    return Model.model_validate({"metadata": {"name": name}, "spec": spec, "status": {"revision": "1", "url": "x"}})


class Reader:
    """Endpoint ``reader`` over Models ``one`` and ``two``, and the operator that looks after it."""

    def __init__(
        self,
        started: Router,
        listen: Listen,
        client: aiohttp.ClientSession,
        servers: Mapping[str, Backend],
        **spec: Any,
    ) -> None:
        self.router = started
        self.url = f"http://127.0.0.1:{listen.http_port}/v2/models/reader"
        self.client = client
        self._servers = {f"default/{name}-1": (of.server,) for name, of in servers.items()}
        self._routes = [Route("default", name, (Arm(f"{name}-1", "1", "a", FULL_WEIGHT),)) for name in servers]
        self._now = START
        arms = [{"name": "control", "model": "one", "weight": 50}, {"name": "challenger", "model": "two", "weight": 50}]
        given = {"metadata": {"name": "reader", "uid": "1"}, "spec": {"arms": arms, **spec}}
        self._endpoint = Endpoint.model_validate(given)

    async def look(self, after_s: float = 0.0) -> EndpointStatus:
        """One reconcile, ``after_s`` later; HAProxy has what came of it."""
        self._now += datetime.timedelta(seconds=after_s)
        route = self.router.observe("default", "reader")
        models = [model("one"), model("two")]
        decided = endpoints.plan(self._endpoint, models, Observation(route=route), self._now)
        assert isinstance(decided.route, Split)
        assert isinstance(decided.status, EndpointStatus)
        self._endpoint = self._endpoint.model_copy(update={"status": decided.status})
        table = successor(self.router.table, [*self._routes, decided.route], self._servers, None)
        await self.router.apply(table)
        return decided.status

    async def experiment(self, after_s: float = 5.0) -> ExperimentStatus:
        status = await self.look(after_s)
        assert status.experiment is not None
        return status.experiment

    async def ask(self, **headers: str) -> tuple[str, str]:
        """Who answered, and the id of the answer."""
        async with self.client.post(f"{self.url}/infer", headers=headers) as answer:
            assert answer.status == 200
            return await answer.text(), answer.headers.get(REQUEST_ID_HEADER, "")

    async def report(self, said: Mapping[str, object], path: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        async with self.client.post(f"{path or self.url}/reward", json=said, headers=headers) as answer:
            assert REQUEST_ID_HEADER not in answer.headers
            return answer.status, await answer.json()

    async def units(
        self, count: int, chances: Mapping[str, float], lost: Callable[[str], bool] = lambda _: False
    ) -> collections.Counter[str]:
        """``count`` units ask; whoever answers wins with its chance, which is reported if the report is not lost."""
        chance, answered = random.Random(count), collections.Counter[str]()
        limit = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with limit:
                who, given = await self.ask()
                answered[who] += 1
                value = float(chance.random() < chances[who])
                if not lost(who):
                    assert await self.report({"id": given, "value": value}) == (200, {"counted": True})

        await asyncio.gather(*(one() for _ in range(count)))
        return answered


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    timeout, limits = aiohttp.ClientTimeout(DEADLINE_S), aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(timeout=timeout, connector=limits) as session:
        yield session


async def test_of_two_thousand_units_a_better_arm_is_found_with_its_interval(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two}, experiment={"metric": "clicks"})
        await reader.look()
        answered = await reader.units(2_000, {"one": 0.3, "two": 0.5})
        found = await reader.experiment()
    assert {arm.name: arm.units for arm in found.arms} == {"control": answered["one"], "challenger": answered["two"]}
    assert found.state == "Found"
    assert found.verdict.startswith("challenger is better than control by 0.")
    effect = found.arms[1].effect
    assert effect is not None
    assert effect.low < 0.2 < effect.high


async def test_an_alarm_is_raised_when_the_reports_of_one_side_are_lost(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two}, experiment={})
        await reader.look()
        some = random.Random(2)
        await reader.units(1_500, {"one": 0.3, "two": 0.5}, lambda who: who == "two" and some.random() < 0.5)
        found = await reader.experiment()
    assert found.state == "Blocked"
    assert found.verdict.startswith("the sample ratio is off: ")
    assert [arm.effect for arm in found.arms] == [None, None]


async def test_a_bandit_brings_its_traffic_to_the_better_arm_and_goes_on_where_it_was_after_a_restart(
    running: Router, listen: Listen, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with backend("one") as one, backend("two") as two:
        chances = {"one": 0.2, "two": 0.6}
        reader = Reader(running, listen, client, {"one": one, "two": two}, policy="bandit")
        await reader.look()
        before = reloads(running)
        shares = []
        for _ in range(3):
            await reader.units(100, chances)
            found = await reader.experiment(60)
            shares.append({arm.name: arm.weight for arm in found.arms}["challenger"])
        assert shares == [6_000, 7_000, 8_000]
        assert reloads(running) == before, "shares move without a reload"
        await running.leave()
        reader.router = router(tmp_path / "router", listen)
        await reader.router.start()
        try:
            answered = await reader.units(300, chances)
            found = await reader.experiment(60)
        finally:
            await reader.router.stop(STOP_TIMEOUT_S)
    assert answered["two"] > 200
    assert sum(arm.units for arm in found.arms) == 600
    assert {arm.name: arm.weight for arm in found.arms} == {"control": 1_000, "challenger": 9_000}


async def test_a_unit_counts_once_and_what_clients_say_of_its_arm_is_not_believed(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two}, experiment={"metric": "clicks"})
        name = (await reader.experiment(0)).name
        who, given = await reader.ask()
        arm = {"one": "control", "two": "challenger"}[who]
        assert given.startswith(f"{arm}.5000.{name}.")
        assert await reader.report({"id": given, "value": 1}) == (200, {"counted": True})
        assert (await reader.report({"id": given, "value": 1}))[1]["counted"] is False
        forged = {REQUEST_ID_HEADER: given.replace("5000", "1"), "penstock-outcome-of": "default/other"}
        status, said = await reader.report({"value": 1}, **forged)
        assert (status, said["error"].partition(";")[0]) == (400, "the report names no answer")
        answers = [
            await reader.report({"id": given, "value": "much"}),
            await reader.report({"id": "no id", "value": 1}),
            await reader.report({"id": f"{arm}.5000.{name}.1", "value": 1}),
            await reader.report({"id": given.replace(arm, "other"), "value": 1}),
            await reader.report({"id": given.replace(name, "0"), "value": 1}),
            await reader.report({"id": given, "value": 1, "metric": "sales"}),
        ]
        assert [(status, (said.get("error") or said["why"]).partition(";")[0]) for status, said in answers] == [
            (400, "value: Input should be a valid number"),
            (400, "id: 'no id' is no penstock-request-id of endpoint default/reader"),
            (400, f"id: '{arm}.5000.{name}.1' is no penstock-request-id of endpoint default/reader"),
            (404, "id: endpoint default/reader has no arm other with a weight, but control, challenger"),
            (200, f"the answer belongs to experiment 0, and {name} goes on"),
            (200, "metric 'sales' does not decide, 'clicks' does"),
        ]
        by_path = f"http://127.0.0.1:{listen.http_port}/default/reader/v2/models/reader"
        _, other = await reader.ask()
        assert await reader.report({"id": other, "value": 0}, by_path) == (200, {"counted": True})
        assert sum(arm.units for arm in (await reader.experiment()).arms) == 2


async def test_a_client_that_keeps_its_arm_reports_by_what_it_always_sends_and_counts_once(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two}, experiment={}, **USERS)
        await reader.look()
        asked = {f"u{n}": (await reader.ask(**{"x-user": f"u{n}"}))[0] for n in range(40)}
        for user, who in asked.items():
            value = float(who == "two")
            assert await reader.report({"value": value}, **{"x-user": user}) == (200, {"counted": True})
        _, given = await reader.ask(**{"x-user": "u0"})
        assert (await reader.report({"id": given, "value": 5}))[1]["counted"] is False
        found = await reader.experiment()
    assert [arm.mean for arm in found.arms] == [0.0, 1.0]
    assert sum(arm.units for arm in found.arms) == 40


async def test_who_counts_no_outcomes_says_so_by_the_name_that_was_asked_and_no_server_is_asked(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two})
        await reader.look()
        assert (await reader.ask())[1] == ""
        asked = one.asked + two.asked
        models = reader.url.rpartition("/")[0]
        answers = [await reader.report({"id": "a", "value": 1}, f"{models}/{name}") for name in ("reader", "one", "no")]
        async with client.get(f"{reader.url}/reward") as answer:
            read = answer.status, answer.headers["allow"], (await answer.json())["error"].partition(";")[0]
        assert one.asked + two.asked == asked
    assert [(status, said["error"].partition(":")[0]) for status, said in answers] == [
        (404, "endpoint default/reader counts no outcomes"),
        (404, "model default/one counts no outcomes"),
        (404, "default/no is no Model and no Endpoint; `penstock get endpoints` lists what may be named"),
    ]
    assert read == (405, "POST", "GET /v2/models/reader/reward: a report is sent by POST")


async def test_an_answer_of_a_model_with_feedback_names_its_revision_and_is_judged_once(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one, backend("two") as two:
        reader = Reader(running, listen, client, {"one": one, "two": two})
        await reader.look()
        table = running.table
        places = {key: dataclasses.replace(of, observe=True, feedback=True) for key, of in table.models.items()}
        await running.apply(dataclasses.replace(table, models=places))
        models = reader.url.rpartition("/")[0]

        async def judge(name: str, given: str, correct: object = True) -> tuple[int, dict[str, Any]]:
            async with client.post(f"{models}/{name}/feedback", json={"id": given, "correct": correct}) as answer:
                assert REQUEST_ID_HEADER not in answer.headers
                return answer.status, await answer.json()

        async def ask(name: str, **headers: str) -> str:
            async with client.post(f"{models}/{name}/infer", headers=headers) as answer:
                return answer.headers.get(REQUEST_ID_HEADER, "")

        given = await ask("one")
        assert given.startswith("one-1.")
        assert await judge("one", given) == (200, {"counted": True})
        assert (await judge("one", given))[1]["counted"] is False
        assert (await judge("one", given.replace("one-1", "one-2")))[0] == 404
        assert (await judge("one", "one-1.1"))[0] == 400
        assert (await judge("two", given))[0] == 404
        for _ in range(2 * BATCH):
            through, given = await reader.ask()
            assert given.startswith(f"{through}-1."), "an Endpoint's answers name the Model's revision"
            assert await judge("reader", given, False) == (200, {"counted": True})
        assert await ask("one", **{"penstock-revision": "1"}) == "", "who asks for a revision is no random sample"
        judged = [seen(running, name) for name in ("one", "two")]
    assert sum(of.judged for of in judged) >= BATCH
    assert sum(of.wrong for of in judged) >= sum(of.judged for of in judged) - 1


def seen(started: Router, name: str) -> Counts:
    """What users said of Model ``name``."""
    found = started.observe("default", name)
    assert found is not None
    assert found.counts.keys() == found.read_s.keys()
    [told] = [of[f"{name}-1"] for of in found.counts.values() if of[f"{name}-1"].judged] or [Counts()]
    return told


async def test_a_model_may_be_called_as_reports_are(
    running: Router, listen: Listen, client: aiohttp.ClientSession
) -> None:
    async with backend("one") as one:
        route = Route("default", "reward", (Arm("reward-1", "1", "a", FULL_WEIGHT),))
        await running.apply(successor(running.table, [route], {"default/reward-1": (one.server,)}, None))
        async with client.get(f"http://127.0.0.1:{listen.http_port}/v2/models/reward") as answer:
            assert await answer.text() == "one"
