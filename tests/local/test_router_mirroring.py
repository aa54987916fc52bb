"""Copies of requests, by a real HAProxy: which requests get one, who is believed about them, and where they go."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import httpx

from operators.api.endpoint import Assignment
from operators.api.plan import Arm, Counts, Mirror, Route, Shadow, Split
from operators.router.agent import Router
from operators.router.configuration import Listen
from operators.router.table import Table, successor
from serving.contract import AGREED_PATH, DISAGREED_PATH, MIRROR_HEADER
from tests.rig import ports
from tests.rig.backends import DEADLINE_S, STOP_TIMEOUT_S, Backend, backend, counted, reloads, router, url
from tests.rig.waiting import until


def mirrored(before: Table, stable: Backend, candidate: Backend, share: int) -> Table:
    """Model ``digits`` of which the second revision gets no traffic, and copies of ``share`` of the first one's."""
    arms = (Arm("digits-r1", "r1", "fp32", 10_000), Arm("digits-r2", "r2", "fp32", 0))
    mirror = Mirror("r2", share, '{"output": {"labels": true}}')
    servers = {"default/digits-r1": (stable.server,), "default/digits-r2": (candidate.server,)}
    return successor(before, [Route("default", "digits", arms, observe=True, mirror=mirror)], servers, None)


def header(request: bytes, name: str) -> str | None:
    found = re.search(rb"^%s: (.*)\r$" % name.encode(), request.partition(b"\r\n\r\n")[0] + b"\r", re.MULTILINE)
    return found[1].decode() if found else None


def copied(request: bytes) -> tuple[str, dict[str, object], str] | None:
    """Where a copy of ``request`` is to be sent, for whom, and with which token, as its header says."""
    said = header(request, MIRROR_HEADER)
    if said is None:
        return None
    address, what, token = said.split("|", 2)
    return address, json.loads(base64.urlsafe_b64decode(what)), token


async def token(client: httpx.AsyncClient, listen: Listen, stable: Backend) -> dict[str, str]:
    """What makes a request a copy: the header of one that was marked."""
    await client.post(url(listen), content=b"{}")
    found = copied(stable.request)
    assert found is not None
    return {MIRROR_HEADER: found[2]}


async def test_a_share_of_the_stable_ones_requests_says_for_whom_to_copy_it(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(mirrored(running.table, r1, r2, 10_000))
        assert (await client.post(url(listen), content=b"{}")).text == "r1"
        found = copied(r1.request)
        assert found is not None
        assert found[:2] == (
            f"127.0.0.1:{listen.http_port}",
            {"revision": "r2", "compare": {"output": {"labels": True}}},
        )
        await client.get(url(listen).removesuffix("/infer"))
        assert copied(r1.request) is None, "what is no inference is not copied"
        await running.apply(mirrored(running.table, r1, r2, 3_000))
        copies = 0
        for _ in range(300):
            await client.post(url(listen), content=b"{}")
            copies += copied(r1.request) is not None
        assert 40 < copies < 150
        await running.apply(mirrored(running.table, r1, r2, 0))
        await client.post(url(listen), content=b"{}")
        assert (copied(r1.request), r2.asked) == (None, 0)


async def test_a_copy_gets_the_revision_it_was_made_for_is_not_counted_and_is_not_copied(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(mirrored(running.table, r1, r2, 10_000))
        trusted = await token(client, listen, r1)
        answer = await client.post(url(listen), content=b"{}", headers=trusted)
        assert answer.text == "r2"
        assert header(r2.request, MIRROR_HEADER) is None
        for ask in ("/v2/models/digits/infer", "/debug/shadow", "/v2/repository/models/digits/unload"):
            refused = await client.request("GET" if "infer" in ask else "POST", url(listen, ask), headers=trusted)
            assert (refused.status_code, refused.json()) == (403, {"error": "a copy is an inference request"})
        r3 = dataclasses.replace(running.table.models["default/digits"].placed[1][1], revision="r3")
        arms = (running.table.models["default/digits"].placed[0][1], r3)
        servers = dict(running.table.servers)
        await running.apply(successor(running.table, [Route("default", "digits", arms, observe=True)], servers, None))
        gone = await client.post(url(listen), content=b"{}", headers=trusted)
        assert (gone.status_code, gone.json()) == (404, {"error": "the Model has no such revision now"})

        async def is_counted() -> bool:
            return counted(running)["digits-r1"].answered == 1

        await until("the one request that is no copy is counted", is_counted)
        assert counted(running)["digits-r2"] == Counts()


async def test_what_came_of_copies_is_counted_without_asking_a_server(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(mirrored(running.table, r1, r2, 10_000))
        trusted = await token(client, listen, r1)
        for path in (AGREED_PATH, AGREED_PATH, DISAGREED_PATH):
            done = await client.post(url(listen, path), headers=trusted)
            assert (done.status_code, done.content) == (204, b"")
        assert (r1.asked, r2.asked) == (1, 0)

        async def is_counted() -> bool:
            return counted(running).get("digits-r2") == Counts(agreed=2, disagreed=1)

        await until("three are counted", is_counted)


async def test_nobody_but_this_router_makes_a_token(tmp_path: Path, running: Router, listen: Listen) -> None:
    elsewhere = Listen("127.0.0.1", *ports.free(2))
    stranger = router(tmp_path / "other", elsewhere)
    await stranger.start()
    try:
        async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
            for one in (running, stranger):
                await one.apply(mirrored(one.table, r1, r2, 10_000))
            other = await token(client, elsewhere, r1)
            aim, counter, expiry, mac = (await token(client, listen, r1))[MIRROR_HEADER].split("|")
            asked = r1.asked
            later = str(int(expiry) + 1)
            for forged in (
                other[MIRROR_HEADER],
                "|".join((aim, counter, later, mac)),
                "|".join((aim.replace("r2", "r1"), counter, expiry, mac)),
                "|".join((aim, counter, expiry, "")),
                "|".join((aim, counter, expiry)),
                "||||",
                "guessed",
                "",
            ):
                for path in ("/v2/models/digits/infer", AGREED_PATH):
                    refused = await client.post(url(listen, path), headers={MIRROR_HEADER: forged})
                    assert refused.status_code == 403, forged
            twice = [(MIRROR_HEADER, "forged"), (MIRROR_HEADER, "")]
            assert (await client.post(url(listen), content=b"{}", headers=twice)).status_code == 403
            assert (r1.asked, r2.asked, counted(running)["digits-r2"]) == (asked, 0, Counts())
    finally:
        await stranger.stop(STOP_TIMEOUT_S)


async def test_a_token_outlives_the_agent_and_a_reload_and_no_restart_of_haproxy(
    tmp_path: Path, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        started = router(tmp_path / "router", listen)
        await started.start()
        await started.apply(mirrored(started.table, r1, r2, 10_000))
        trusted = await token(client, listen, r1)
        await started.leave()
        again = router(tmp_path / "router", listen)
        await again.start()
        also = (Route("default", "wide", (Arm("wide-r1", "r1", "fp32", 10_000),)),)
        before = reloads(again)
        models = [again.table.models["default/digits"].route("default/digits"), *also]
        await again.apply(successor(again.table, models, dict(again.table.servers), None))
        assert reloads(again) == before + 1
        assert (await client.post(url(listen), content=b"{}", headers=trusted)).text == "r2"
        await again.stop(STOP_TIMEOUT_S)
        last = router(tmp_path / "router", listen)
        await last.start()
        assert (await client.post(url(listen), content=b"{}", headers=trusted)).status_code == 403
        trusted = await token(client, listen, r1)
        assert (await client.post(url(listen), content=b"{}", headers=trusted)).text == "r2"
        await last.stop(STOP_TIMEOUT_S)


def shadowed(before: Table, live: Backend, *copies: tuple[Backend, int]) -> Table:
    """Endpoint ``reader``, sticky by header, before Model ``digits``, with Models that get shares of copies."""
    models = [Route("default", "digits", (Arm("digits-r1", "r1", "fp32", 10_000),))]
    models += [Route("default", b.name, (Arm(f"{b.name}-r1", "r1", "fp32", 10_000),)) for b, _ in copies]
    shadows = tuple(Shadow(b.name, share, "{}") for b, share in copies)
    split = Split("default", "reader", (("digits", 10_000),), Assignment(header="x-user"), shadows=shadows)
    servers = {"default/digits-r1": (live.server,)} | {f"default/{b.name}-r1": (b.server,) for b, _ in copies}
    return successor(before, [*models, split], servers, None)


def marks(request: bytes) -> dict[str, str]:
    """For which Models copies of ``request`` are to be sent, and with which tokens."""
    lines = re.findall(rb"^%s: (.*)\r$" % MIRROR_HEADER.encode(), request.partition(b"\r\n\r\n")[0] + b"\r", re.M)
    said = [line.decode().split("|", 2) for line in lines]
    return {json.loads(base64.urlsafe_b64decode(what))["model"]: token for _, what, token in said}


async def test_requests_of_an_endpoint_are_marked_for_each_shadow_and_always_the_same_units(
    running: Router, listen: Listen
) -> None:
    reader = url(listen, "/v2/models/reader/infer")
    async with backend("r1") as r1, backend("all") as all_, backend("half") as half, httpx.AsyncClient() as client:
        await running.apply(shadowed(running.table, r1, (all_, 10_000), (half, 5_000)))

        async def marked(**headers: str) -> bool:
            assert (await client.post(reader, content=b"{}", headers=headers)).text == "r1"
            found = marks(r1.request).keys()
            assert found in ({"all"}, {"all", "half"})
            return "half" in found

        first = {f"user-{n}": await marked(**{"x-user": f"user-{n}"}) for n in range(60)}
        again = {f"user-{n}": await marked(**{"x-user": f"user-{n}"}) for n in range(60)}
        assert first == again
        assert 10 < sum(first.values()) < 50
        assert 10 < sum([await marked() for _ in range(60)]) < 50
        await client.get(url(listen, "/v2/models/reader"))
        assert marks(r1.request) == {}, "what is no inference is not copied"
        await client.post(url(listen), content=b"{}")
        assert marks(r1.request) == {}, "the Model's own requests are not the Endpoint's"


async def test_a_copy_for_a_shadow_goes_to_its_model_and_is_counted_for_the_endpoint_alone(
    running: Router, listen: Listen
) -> None:
    reader = url(listen, "/v2/models/reader/infer")
    async with backend("r1") as r1, backend("next") as to, httpx.AsyncClient() as client:
        await running.apply(shadowed(running.table, r1, (to, 10_000)))
        assert (await client.post(reader, content=b"{}")).text == "r1"
        token = {MIRROR_HEADER: marks(r1.request)["next"]}
        copy = await client.post(url(listen, "/v2/models/next/infer"), content=b"{}", headers=token)
        assert (copy.text, marks(to.request)) == ("next", {})
        for path in (AGREED_PATH, DISAGREED_PATH, AGREED_PATH):
            assert (await client.post(url(listen, path), headers=token)).status_code == 204

        async def is_counted() -> bool:
            seen = running.observe("default", "reader")
            return seen is not None and list(seen.counts.values()) == [{"next": Counts(1, agreed=2, disagreed=1)}]

        await until("copy and answers are counted", is_counted)
        seen = running.observe("default", "next")
        assert seen is not None
        assert seen.counts == {}
        before = running.table
        digits, nothing = before.models["default/digits"].route("default/digits"), Route("default", "next", ())
        routes: list[Route | Split] = [digits, nothing, *before.endpoints.values()]
        await running.apply(successor(before, routes, dict(before.servers), None))
        gone = await client.post(url(listen, "/v2/models/next/infer"), content=b"{}", headers=token)
        assert (gone.status_code, gone.json()) == (404, {"error": "the Model does not serve now"})
