"""What does the router cost, and how soon does traffic follow other weights?

Every contestant stands before the same server: nothing, Penstock's router, Traefik, Envoy; in each round each in
turn, all on one processor. Processor time is that of the router alone, for each request; latencies are of requests that
come at random moments, far below what it could take. Then the weights of two arms are turned around again and again
while requests come, and each change is timed from when the agent is told to the first answer of the arm that it is for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import dialects, generators, models, origin, processes, proxies, routing
from benchmarks.contestants import CONTESTANTS, OURS, Server, serving
from benchmarks.interleaving import rotated
from operators.api.plan import FULL_WEIGHT, Arm, Route
from operators.router import table
from operators.router.agent import Router, haproxy
from operators.router.configuration import Listen
from serving.contract import REVISION_HEADER

_CONNECTIONS = 8
_RATE = 300.0
"""Requests a second where latency is measured."""
_APART_S = (0.3, 0.8)
"""Between two changes of weights."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--rounds", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: %(default)s)")
    parser.add_argument("--changes", type=int, default=200, help="of weights (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="folder for router.json (default: not written)")


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 if any request failed."""
    generators.require()
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-") as folder:
        model = models.made("mlp", Path(folder))
        with serving(CONTESTANTS[OURS], model) as server:
            server.await_answer("grpc")
            rounds = list(_rounds(server, options.rounds, options.seconds))
            changes_ms, failed = asyncio.run(_changes(server, options.changes))
    failed += sum(one["failed"] for one in rounds)
    results = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": origin.described(),
        "rounds": rounds,
        "costs": _costs(rounds),
        "weightChangesMs": [round(one, 1) for one in changes_ms],
        "failed": failed,
    }
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "router.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{'':6}{'':10}{'CPU µs':>8}{'p50 ms':>8}{'p99 ms':>8}   medians of {options.rounds} rounds")
    for one in _costs(rounds):
        print(f"{one['protocol']:6}{one['before']:10}{one['cpuUs']:>8.1f}{one['p50Ms']:>8.2f}{one['p99Ms']:>8.2f}")
    p50, p99 = np.percentile(changes_ms, (50, 99))
    print(
        f"weights followed within {p50:.0f} ms (p99 {p99:.0f} ms, {len(changes_ms)} changes); {failed} requests failed"
    )
    return 1 if failed else 0


def _rounds(server: Server, rounds: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Samples as they come. The server may use what the router leaves it, so rates are of both."""
    with contextlib.ExitStack() as stack:
        ways: dict[str, Callable[[Server], contextlib.AbstractContextManager[Server]]] = {
            "nothing": contextlib.nullcontext,
            OURS: routing.routed,
            "traefik": proxies.traefik,
            "envoy": proxies.envoy,
        }
        ones = [(name, stack.enter_context(way(server))) for name, way in ways.items()]
        for protocol, (_, one) in itertools.product(("json", "grpc"), ones):
            one.await_answer(protocol)
        for number, protocol in itertools.product(range(rounds), ("json", "grpc")):
            for name, one in rotated(ones, number):
                yield {
                    "round": number,
                    "protocol": protocol,
                    "before": name,
                    **_measured(server, one, protocol, seconds),
                }


def _measured(server: Server, one: Server, protocol: str, seconds: int) -> dict[str, float]:
    own = [tree for tree in one.trees if tree not in server.trees]
    request = dialects.request(CONTESTANTS[OURS].dialects[protocol], one.model)
    closed = generators.grpc if protocol == "grpc" else generators.http
    before_s = processes.cpu_s(own)
    driven = closed(request, one.port(protocol), _CONNECTIONS, seconds)
    cpu_us = 1e6 * (processes.cpu_s(own) - before_s) / driven.requests
    told = {"cpuUs": cpu_us, "rate": driven.requests / driven.seconds, "failed": driven.failed}
    if protocol == "grpc":
        return told | {"p50Ms": driven.p50_ms, "p99Ms": driven.p99_ms}
    opened = generators.open_loop(one.request(protocol), one.port(protocol), _RATE, seconds)
    return told | {"p50Ms": opened.p50_ms, "p99Ms": opened.p99_ms, "failed": driven.failed + opened.failed}


def _costs(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by protocol and contestant."""
    found = []
    for protocol, before in sorted({(one["protocol"], one["before"]) for one in rounds}):
        mine = [one for one in rounds if (one["protocol"], one["before"]) == (protocol, before)]
        medians = {key: statistics.median(one[key] for one in mine) for key in ("cpuUs", "rate", "p50Ms", "p99Ms")}
        found.append({"protocol": protocol, "before": before, **medians})
    return found


async def _changes(server: Server, changes: int) -> tuple[list[float], int]:
    """Milliseconds from each change to the first answer of the other arm, and how many requests failed."""
    http_port, grpc_port = processes.free_ports(2)
    folder = server.folder / "agent"
    router = Router(folder, Listen("127.0.0.1", http_port, grpc_port), haproxy(), os.environ, lambda: None)
    name, chance = server.model.name, random.Random(0)
    target = table.Server("127.0.0.1", server.http_port, server.grpc_port, True)
    servers = {f"default/{arm}": (target,) for arm in ("one", "other")}
    revisions = itertools.cycle(("one", "other"))
    answers: list[tuple[float, str]] = []

    async def turn(to: str) -> None:
        arms = tuple(Arm(arm, arm, "default", FULL_WEIGHT if arm == to else 0) for arm in ("one", "other"))
        await router.apply(table.successor(router.table, [Route("default", name, arms)], servers, None))

    asked = dialects.request("json", server.model)
    taken, failed = [], 0
    await router.start()
    try:
        await turn(next(revisions))
        url = f"http://127.0.0.1:{http_port}{asked.path}"
        async with httpx.AsyncClient(timeout=30) as client:

            async def ask() -> None:
                nonlocal failed
                answer = await client.post(url, content=asked.body, headers=dict(asked.headers))
                failed += answer.status_code != 200
                answers.append((time.perf_counter(), answer.headers.get(REVISION_HEADER, "")))

            async def load() -> None:
                async with asyncio.TaskGroup() as group:
                    while True:
                        group.create_task(ask())
                        await asyncio.sleep(1 / _RATE)

            loading = asyncio.create_task(load())
            for _ in range(changes):
                await asyncio.sleep(chance.uniform(*_APART_S))
                to, seen, began_s = next(revisions), len(answers), time.perf_counter()
                await turn(to)
                while not (first := next((at_s for at_s, revision in answers[seen:] if revision == to), None)):
                    await asyncio.sleep(0.001)
                taken.append(1000 * (first - began_s))
            loading.cancel()
            await asyncio.wait([loading])
    finally:
        await router.stop(1.0)
    return taken, failed
