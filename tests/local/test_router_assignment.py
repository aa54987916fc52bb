"""Who gets which arm, by a real HAProxy: sticky clients under moving weights, and arms that a client asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import httpx
import pytest

from operators.api.endpoint import Assignment
from operators.api.plan import FULL_WEIGHT, Arm, Route, Split
from operators.router.agent import Router
from operators.router.configuration import Listen
from operators.router.table import successor
from tests.rig.backends import DEADLINE_S, Backend, backend, url
from tests.rig.waiting import until

USERS = 100_000
_CONNECTIONS, _PIPELINED = 10, 100


def routed(
    started: Router, r1: Backend, r2: Backend, share: int, by: Assignment | None, *also: Split, observe: bool = False
) -> asyncio.Future[None]:
    """Model ``digits`` with revision r1, and r2 with ``share`` of the traffic."""
    arms = (Arm("digits-r1", "r1", "fp32", FULL_WEIGHT - share), Arm("digits-r2", "r2", "int8", share))
    route = Route("default", "digits", arms, observe=observe, assignment=by)
    servers = {"default/digits-r1": (r1.server,), "default/digits-r2": (r2.server,)}
    return asyncio.ensure_future(started.apply(successor(started.table, [route, *also], servers, None)))


async def sides(listen: Listen, headers: str) -> list[str]:
    """The revision that answers each of ``USERS`` clients; in ``headers`` stands ``USER`` for the client's number."""

    async def of(users: range) -> list[str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", listen.http_port)
        found = []
        for first in users[::_PIPELINED]:
            for user in range(first, first + _PIPELINED):
                head = f"GET /v2/models/digits HTTP/1.1\r\nhost: x\r\n{headers.replace('USER', str(user))}\r\n\r\n"
                writer.write(head.encode())
            for _ in range(_PIPELINED):
                answer = await reader.readuntil(b"\r\n\r\n")
                name = re.search(rb"penstock-revision: (\S+)", answer)
                assert name, answer
                found.append(name[1].decode())
                await reader.readexactly(len(name[1]))
        writer.close()
        return found

    each = USERS // _CONNECTIONS
    parts = await asyncio.gather(*(of(range(n * each, (n + 1) * each)) for n in range(_CONNECTIONS)))
    return [side for part in parts for side in part]


async def test_of_a_hundred_thousand_users_exactly_the_moved_share_changes_sides(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2:
        by = Assignment(header="X-User")
        found = {}
        for share in (1_000, 2_500):
            await routed(running, r1, r2, share, by)
            found[share] = await sides(listen, "x-user: user-USER")
        tenth, quarter = ({user for user, side in enumerate(of) if side == "r2"} for of in found.values())
        assert tenth < quarter
        # Hashes scatter: 5 standard deviations around what is asked.
        assert abs(len(tenth) - USERS * 0.10) < 5 * (USERS * 0.10 * 0.90) ** 0.5
        assert abs(len(quarter) - USERS * 0.25) < 5 * (USERS * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(
    ("by", "sticky", "drawn"),
    [
        (Assignment(cookie="sid"), {"cookie": "a=1; sid=7"}, {"cookie": "a=1"}),
        (Assignment(header="X-User", cookie="sid"), {"cookie": "sid=7", "x-user": "u"}, {"x-user": "u"}),
    ],
    ids=["cookie", "both"],
)
async def test_who_sends_all_of_it_keeps_an_arm_and_who_does_not_is_drawn_anew(
    running: Router, listen: Listen, by: Assignment, sticky: dict[str, str], drawn: dict[str, str]
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await routed(running, r1, r2, 5_000, by)

        async def answers(headers: Mapping[str, str]) -> set[str]:
            return {(await client.get(url(listen), headers=headers)).text for _ in range(40)}

        assert len(await answers(sticky)) == 1
        assert await answers(drawn) == {"r1", "r2"}
        others = [await answers({name: f"{value}{n}" for name, value in sticky.items()}) for n in range(20)]
        assert {frozenset(each) for each in others} == {frozenset({"r1"}), frozenset({"r2"})}


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({"penstock-revision": "r2"}, "", "r2"),
        ({}, "?penstock-revision=r2", "r2"),
        ({"penstock-variant": "int8"}, "", "r2"),
        ({}, "?penstock-variant=int8&x=1", "r2"),
        ({"penstock-revision": "r2", "penstock-variant": "int8"}, "", "r2"),
        ({"penstock-revision": "r1"}, "", "r1"),
    ],
)
async def test_a_client_gets_the_arm_that_it_asks_for_and_is_no_sample(
    running: Router, listen: Listen, headers: dict[str, str], query: str, expected: str
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await routed(running, r1, r2, 1, None, observe=True)
        answers = {(await client.post(url(listen) + query, headers=headers)).text for _ in range(10)}
        assert answers == {expected}
        assert (await client.post(url(listen))).text in ("r1", "r2")

        async def counted() -> int:
            seen = running.observe("default", "digits")
            assert seen is not None
            return sum(of.answered for by_workload in seen.counts.values() for of in by_workload.values())

        async def one() -> bool:
            return await counted() > 0

        await until("the one that was drawn is told", one)
        assert await counted() == 1


async def test_an_arm_that_is_not_there_is_said_to_be_none(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        shares = Split("default", "reader", (("digits", FULL_WEIGHT),), None, {"only": "digits"})
        await routed(running, r1, r2, 1, None, shares)
        reader = url(listen).replace("digits", "reader")
        answers = [
            await client.get(url(listen), headers={"penstock-revision": 'r"9'}),
            await client.get(url(listen), headers={"penstock-revision": "r1", "penstock-variant": "int8"}),
            await client.get(reader, headers={"penstock-arm": "other"}),
        ]
        assert [(answer.status_code, answer.json()) for answer in answers] == [
            (404, {"error": 'default/digits/r"9/ is no NAMESPACE/MODEL/REVISION/VARIANT with traffic'}),
            (404, {"error": "default/digits/r1/int8 is no NAMESPACE/MODEL/REVISION/VARIANT with traffic"}),
            (404, {"error": "default/reader/other is no NAMESPACE/ENDPOINT/ARM whose model serves"}),
        ]
        call = {"content-type": "application/grpc", "penstock-model": "default/digits", "penstock-revision": "r9"}
        answer = await client.post(url(listen), headers=call)
        assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == (
            "5",
            "default%2Fdigits%2Fr9%2F is no NAMESPACE/MODEL/REVISION/VARIANT with traffic",
        )


async def test_an_arm_of_an_endpoint_answers_who_asks_for_it_whatever_its_weight(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        routes = [Route("default", name, (Arm(f"{name}-1", "1", "a", FULL_WEIGHT),)) for name in ("one", "two")]
        names = {"control": "one", "new": "two"}
        split = Split("default", "reader", (("one", FULL_WEIGHT),), None, names, share_arms=("control",))
        servers = {"default/one-1": (r1.server,), "default/two-1": (r2.server,)}
        await running.apply(successor(running.table, [*routes, split], servers, None))
        reader = url(listen).replace("digits", "reader")
        assert (await client.get(reader)).text == "r1"
        assert (await client.get(reader, headers={"penstock-arm": "new"})).text == "r2"
        assert (await client.get(f"{reader}?penstock-arm=new")).text == "r2"


async def test_an_answer_names_its_arm_also_where_two_arms_share_a_model_and_nobody_asked_for_one(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        names = {"control": "digits", "again": "digits", "gone": "digits"}
        shares = (("digits", 5_000), ("digits", 5_000))
        split = Split("default", "reader", shares, Assignment(header="X-User"), names, share_arms=("control", "again"))
        await routed(running, r1, r2, 5_000, None, split)
        reader = url(listen).replace("digits", "reader")
        told = [(await client.get(reader, headers={"x-user": str(user)})).headers for user in range(40)]
        assert {headers["penstock-arm"] for headers in told} == {"control", "again"}
        assert {headers["penstock-revision"] for headers in told} == {"r1", "r2"}
        again = [
            (await client.get(reader, headers={"x-user": str(user)})).headers["penstock-arm"] for user in range(40)
        ]
        assert again == [headers["penstock-arm"] for headers in told]
        asked = await client.get(reader, headers={"penstock-arm": "gone"})
        assert asked.headers["penstock-arm"] == "gone"
        assert "penstock-arm" not in (await client.get(url(listen))).headers
        call = {"content-type": "application/grpc", "penstock-model": "default/reader"}
        assert (await client.post(url(listen), headers=call)).headers["penstock-arm"] in ("control", "again")
