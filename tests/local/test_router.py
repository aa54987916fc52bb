"""``Router`` alone with a real HAProxy: what reloads, what does not, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from operators.api.errors import Unreachable
from operators.api.plan import CELLS, Arm, Counts, Route, RouteObserved
from operators.router.agent import Router
from operators.router.configuration import Listen
from operators.router.table import Table, successor
from tests.rig import ports
from tests.rig.backends import DEADLINE_S, STOP_TIMEOUT_S, Backend, backend, counted, reloads, router, table, url
from tests.rig.waiting import until


def replicas(before: Table, *backends: Backend) -> Table:
    """Model ``digits`` with one arm that all of ``backends`` serve."""
    arm = Arm("digits-r1", "r1", "fp32", 10_000)
    return successor(
        before, [Route("default", "digits", (arm,))], {"default/digits-r1": tuple(b.server for b in backends)}, None
    )


async def test_a_request_under_way_is_counted_and_keeps_its_server(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(table(running.table, r1))
        r1.go.clear()
        slow = asyncio.create_task(client.get(url(listen)))

        async def counted() -> bool:
            seen = running.observe("default", "digits")
            return seen is not None and seen.in_flight == {"digits-r1": 1}

        await until("the request is counted", counted)
        await running.apply(table(running.table, r1, r2))
        assert (await client.get(url(listen))).text == "r2"

        async def left() -> bool:
            return running.observe("default", "digits") == RouteObserved(
                (Arm("digits-r2", "r2", "fp32", 10_000),), {"digits-r1": 1, "digits-r2": 0}
            )

        await until("only the old request is left on the old server", left)
        assert running.uses("default", "digits-r1", r1.server)
        r1.go.set()
        answer = await slow
        assert (answer.text, answer.headers["penstock-revision"]) == ("r1", "r1")

        async def unused() -> bool:
            return not running.uses("default", "digits-r1", r1.server)

        await until("the old server is out of use", unused)
    assert reloads(running) == 1


async def test_a_server_that_took_another_variant_says_so_itself(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(table(running.table, r1))
        assert (await client.get(url(listen))).headers["penstock-variant"] == "fp32"
        r1.headers = b"penstock-variant: pruned\r\n"
        assert (await client.get(url(listen))).headers.get_list("penstock-variant") == ["pruned"]


async def test_a_new_model_is_a_reload_during_which_old_connections_keep_their_servers(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(table(running.table, r1))
        assert (await client.get(url(listen))).text == "r1"
        also = (Route("default", "other", (), "not yet"),)
        await running.apply(table(running.table, r1, also=also))
        await running.apply(table(running.table, r1, r2, also=also))
        assert running.uses("default", "digits-r1", r1.server)
        seen = running.observe("default", "digits")
        assert seen == RouteObserved((Arm("digits-r2", "r2", "fp32", 10_000),), {"digits-r1": 0, "digits-r2": 0})
        # The idle connection is the old worker's still, which answers once more and closes it.
        answer = await client.get(url(listen))
        assert (answer.text, answer.headers["connection"]) == ("r1", "close")
        assert (await client.get(url(listen))).text == "r2"

        async def unused() -> bool:
            return not running.uses("default", "digits-r1", r1.server)

        await until("the old server is out of use", unused)
    assert reloads(running) == 2


async def test_a_connection_is_answered_once_more_while_the_router_ends_and_the_router_waits_for_no_other(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(table(running.table, r1))
        assert (await client.get(url(listen))).text == "r1"
        ending = asyncio.create_task(running.stop(DEADLINE_S))

        async def refused() -> bool:
            async with httpx.AsyncClient() as other:
                try:
                    await other.get(url(listen))
                except httpx.ConnectError:
                    return True
                return False

        await until("nobody new is taken", refused)
        assert not ending.done()
        answer = await client.get(url(listen))
        assert (answer.text, answer.headers["connection"]) == ("r1", "close")
        await ending


async def test_a_request_that_a_replica_did_not_live_to_answer_gets_one_more(running: Router, listen: Listen) -> None:
    async with backend("r1") as one, backend("r1") as other, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(replicas(running.table, one, other))
        one.killed_by = b"HTTP/1.1"
        for body in (b"", b"small", bytes(60_000)):
            for _ in range(4):
                assert (await client.post(url(listen), content=body)).text == "r1"
        assert one.asked > 0


@pytest.mark.parametrize(
    ("servers", "body", "last_words", "asked", "status"),
    [
        (4, b"poison", b"", 2, 502),
        (2, b"poison", b"", 2, 502),
        (1, b"poison", b"", 1, 502),
        (4, b"poison" + bytes(100_000), b"", 1, 502),
        (4, b"poison", b"HTTP/1.1 200 OK\r\ncontent-le", 1, 502),
    ],
    ids=["many replicas", "two replicas", "one replica", "larger than a buffer", "an answer that broke off"],
)
async def test_a_request_that_kills_servers_is_seen_by_two_at_most(
    running: Router, listen: Listen, servers: int, body: bytes, last_words: bytes, asked: int, status: int
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        backends = [await stack.enter_async_context(backend("r1")) for _ in range(4)]
        for each in backends:
            each.killed_by, each.last_words = b"poison", last_words
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=DEADLINE_S))
        await running.apply(replicas(running.table, *backends))
        await running.apply(replicas(running.table, *backends[:servers]))
        assert (await client.post(url(listen), content=body)).status_code == status
        assert sum(each.asked for each in backends) == asked
        assert (await client.post(url(listen), content=b"harmless")).text == "r1"


async def test_where_most_requests_would_be_sent_again_none_is_until_that_is_over(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as one, backend("r1") as two, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        one.killed_by = two.killed_by = b"poison"
        await running.apply(replicas(running.table, one, two))

        async def asked() -> int:
            before = one.asked + two.asked
            assert (await client.post(url(listen), content=b"poison")).status_code == 502
            return one.asked + two.asked - before

        assert await asked() == 2

        async def sent_once() -> bool:
            return {await asked() for _ in range(5)} == {1}

        async def sent_again() -> bool:
            return await asked() == 2

        await until("the budget is spent", sent_once)
        await until("there is a budget again", sent_again)
        assert reloads(running) == 1


async def test_steady_means_that_nothing_is_sent(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1:
        await running.apply(table(running.table, r1))
        written = {path.name: path.stat().st_mtime_ns for path in running.folder.iterdir() if path.is_file()}
        await running.apply(table(running.table, r1))
    assert {path.name: path.stat().st_mtime_ns for path in running.folder.iterdir() if path.is_file()} == written


async def test_servers_come_and_go_without_a_reload(running: Router, listen: Listen) -> None:
    async with backend("r1") as one, backend("r1") as other, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(replicas(running.table, one))
        await running.apply(replicas(running.table, one, other))
        once = reloads(running)
        await running.apply(replicas(running.table, one))
        await running.apply(replicas(running.table, one, other))
        await running.apply(replicas(running.table, other))
        assert (await client.get(url(listen))).text == "r1"

        async def unused() -> bool:
            return not running.uses("default", "digits-r1", one.server)

        await until("the replica has left", unused)
        assert running.uses("default", "digits-r1", other.server)
    assert reloads(running) == once == 2, "one for the Model, one for its first second server"


async def test_the_next_agent_finds_the_table_and_the_same_haproxy(tmp_path: Path, listen: Listen) -> None:
    first = router(tmp_path / "router", listen)
    await first.start()
    async with backend("r1") as r1, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await first.apply(table(first.table, r1))
        await first.leave()
        second = router(tmp_path / "router", listen)
        assert second.table == first.table
        await second.start()
        try:
            assert (await client.get(url(listen))).text == "r1"
            assert second.observe("default", "digits") == first.observe("default", "digits")
            assert reloads(second) == 1
        finally:
            await second.stop(STOP_TIMEOUT_S)


async def test_metrics_count_the_requests_of_every_server(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(table(running.table, r1))
        for _ in range(3):
            assert (await client.get(url(listen))).text == "r1"
        metrics = (await client.get(f"http://127.0.0.1:{listen.http_port}/metrics")).text
        counted = [
            line
            for line in metrics.splitlines()
            if line.startswith(("haproxy_server_http_responses_total", "haproxy_backend_http_responses_total"))
            and 'code="2xx"' in line
            and not line.endswith(" 0")
        ]
        place, server = 'proxy="default:digits:a:h1"', f'server="digits-r1:127.0.0.1:{r1.port}"'
        assert counted == [
            f'haproxy_backend_http_responses_total{{{place},code="2xx"}} 3',
            f'haproxy_server_http_responses_total{{{place},{server},code="2xx"}} 3',
        ]
        of_model = await client.get(f"http://127.0.0.1:{listen.http_port}/metrics", headers={"host": "digits.default"})
        assert of_model.text == "r1", "with a Model's host its server is asked"


async def test_inference_is_counted_by_arm_server_and_time_where_the_route_asks_for_it(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        arms = (Arm("digits-r1", "r1", "fp32", 10_000), Arm("digits-r2", "r2", "fp32", 0))
        servers = {"default/digits-r1": (r1.server,), "default/digits-r2": (r2.server,)}

        def routed(observe: bool, *shares: int) -> Table:
            moved = tuple(dataclasses.replace(arm, weight=share) for arm, share in zip(arms, shares, strict=True))
            route = Route("default", "digits", moved, observe=observe)
            return successor(running.table, [route], servers, None)

        await running.apply(routed(False, 10_000, 0))
        assert (await client.post(url(listen))).text == "r1"
        seen = running.observe("default", "digits")
        assert seen is not None
        assert (seen.counts, seen.read_s) == ({}, {})
        await running.apply(routed(True, 10_000, 0))
        assert counted(running) == {"digits-r1": Counts(), "digits-r2": Counts()}
        for _ in range(5):
            assert (await client.post(url(listen))).text == "r1"
        for path in ("", "/ready"):
            await client.get(url(listen).removesuffix("/infer") + path)
        r1.killed_by = b"HTTP/1.1"
        # On a connection that has been used before, HAProxy says nothing and closes it.
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(url(listen))
        async with httpx.AsyncClient(timeout=DEADLINE_S) as fresh:
            assert (await fresh.post(url(listen))).status_code == 502
        await running.apply(routed(True, 0, 10_000))
        r2.status = b"400 Bad Request"
        for _ in range(3):
            assert (await client.post(url(listen))).status_code == 400

        async def all_told() -> bool:
            return sum(of.answered for of in counted(running).values()) == 10

        await until("all is told", all_told)
        found = counted(running)
        latency = found["digits-r1"].latency
        assert set(latency) <= set(CELLS)
        assert sum(latency.values()) == 5
        one = f"127.0.0.1:{r1.port}"
        assert found == {
            "digits-r1": Counts(7, 2, latency, {one: (5, 0)}, {one: latency}),
            "digits-r2": Counts(3, 3, {}, {f"127.0.0.1:{r2.port}": (3, 3)}),
        }
    assert reloads(running) == 1


async def test_a_new_worker_counts_anew_and_one_that_makes_room_counts_no_more(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        route = Route("default", "digits", (Arm("digits-r1", "r1", "fp32", 10_000),), observe=True)
        servers = {"default/digits-r1": (r1.server,)}
        await running.apply(successor(running.table, [route], servers, None))
        assert (await client.post(url(listen))).text == "r1"

        async def told() -> bool:
            return counted(running)["digits-r1"].answered == 1

        await until("the request is told", told)
        before = running.observe("default", "digits")
        also = Route("default", "other", (), "not yet")
        await running.apply(successor(running.table, [route, also], servers, None))
        after = running.observe("default", "digits")
        assert before is not None
        assert after is not None
        assert not before.counts.keys() & after.counts.keys()
        assert counted(running) == {"digits-r1": Counts()}


async def test_a_server_that_fails_where_another_does_not_is_left_out_until_it_has_recovered(
    running: Router, listen: Listen
) -> None:
    async with backend("r1") as good, backend("r2") as bad, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await running.apply(replicas(running.table, good, bad))
        bad.status = b"500 Internal Server Error"

        async def statuses() -> list[int]:
            return [(await client.post(url(listen))).status_code for _ in range(20)]

        assert 500 in await statuses()

        async def left_out() -> bool:
            return set(await statuses()) == {200}

        await until("it is left out", left_out)
        bad.status = b"200 OK"
        before = bad.asked

        async def back() -> bool:
            return set(await statuses()) == {200} and bad.asked > before

        await until("it is asked again", back)
        good.status = bad.status = b"503 Service Unavailable"
        # What all of them do is no fault of one.
        for _ in range(3):
            assert await statuses() == [503] * 20
        assert good.asked > 20
        assert bad.asked > before + 20


async def test_who_floods_an_arm_is_refused_at_once_and_others_go_on(running: Router, listen: Listen) -> None:
    async with backend("r1") as r1, backend("r2") as r2, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        arm, other = Arm("digits-r1", "r1", "fp32", 10_000), Arm("other-r2", "r2", "fp32", 10_000)
        routes = [Route("default", "digits", (arm,), max_concurrent=3), Route("default", "other", (other,))]
        servers = {"default/digits-r1": (r1.server,), "default/other-r2": (r2.server,)}
        await running.apply(successor(running.table, routes, servers, None))
        r1.go.clear()
        admitted = [asyncio.create_task(client.post(url(listen))) for _ in range(3)]

        async def under_way() -> bool:
            return r1.asked == 3

        await until("three are under way", under_way)
        for _ in range(20):
            refused = await client.post(url(listen))
            said = "default/digits already has the 3 requests that spec.traffic.maxConcurrent lets under way; try again"
            assert (refused.status_code, refused.json()) == (503, {"error": said})
            assert refused.headers["retry-after"] == "1"
            assert (await client.post(url(listen).replace("digits", "other"))).text == "r2"
        call = await client.post(
            url(listen), headers={"content-type": "application/grpc", "penstock-model": "default/digits"}
        )
        assert (call.headers["grpc-status"], call.headers["grpc-message"]) == ("14", said)
        r1.go.set()
        assert [(await task).text for task in admitted] == ["r1"] * 3
        assert (await client.post(url(listen))).text == "r1"
        assert r1.asked == 4


async def test_a_port_in_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        [grpc_port] = ports.free(1)
        with pytest.raises(Unreachable) as found:
            await router(tmp_path / "router", Listen("127.0.0.1", port, grpc_port)).start()
    assert re.fullmatch(
        rf"router for 127\.0\.0\.1:{port} and :{grpc_port} did not start: .*Address already in use.*"
        rf"127\.0\.0\.1:{port}.*; if a port is in use, choose others",
        str(found.value),
    )


async def test_a_long_folder_name_is_no_obstacle(tmp_path: Path, listen: Listen) -> None:
    started = router(tmp_path / ("deep" * 30) / "router", listen)
    await started.start()
    try:
        await started.apply(table(started.table, message="not yet"))
        assert started.observe("default", "digits") == RouteObserved(())
    finally:
        await started.stop(STOP_TIMEOUT_S)


async def test_a_haproxy_that_hangs_is_reported_and_found_again(running: Router, listen: Listen) -> None:
    running.table = table(running.table, message="first")
    await running.apply(running.table)
    [worker, *_] = await running_workers(running)
    os.kill(worker, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match="does not answer `@!"):
            await running.apply(table(running.table, message="second"))
    finally:
        os.kill(worker, signal.SIGCONT)
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:

        async def programmed() -> bool:
            answer: object = (await client.get(url(listen))).json()
            return answer == {"error": "second"}

        await until("the worker has what it was told meanwhile", programmed)


async def running_workers(started: Router) -> list[int]:
    from operators.router.control import Control

    return await Control(started.folder).workers()
