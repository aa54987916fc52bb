"""Does a server that has work for a long time keep its memory and its file descriptors?

One server with two models, ``wide`` (batched) and ``cnn`` (602 KB), at a share of the capacity that the same mix of
protocols reached in a closed loop: REST JSON, REST binary, gRPC as the router brings it, gRPC over HTTP/2. Memory is
sampled every few seconds; its slope after a warm-up is a least-squares line with the 95 % interval of its slope.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import json
import math
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from benchmarks import arrivals, connections, contestants, dialects, environments, load, models, origin, processes
from benchmarks.contestants import CONTESTANTS, OURS, Server

_WORKERS = 32
_CLOSED_S = 10.0
_CONNECTIONS = 128
_HTTP2 = "grpc over HTTP/2"
_MIX = {
    ("wide", "json"): 40,
    ("wide", "binary"): 30,
    ("wide", "grpc"): 19,
    ("wide", _HTTP2): 10,
    ("cnn", "binary"): 1,
}
"""Model and protocol → share of the requests in percent."""

Send = Callable[[], Awaitable[str]]


@dataclasses.dataclass(frozen=True)
class Moment:
    """What the server held at one time since the load began."""

    at_s: float
    uss_mib: float
    file_descriptors: int


@dataclasses.dataclass(frozen=True)
class Slope:
    """A line through memory over time."""

    mb_per_hour: float
    low: float
    high: float
    """Ends of the 95 % interval."""


def slope(moments: Sequence[Moment]) -> Slope:
    """Least squares; the interval takes what is left over as independent, and so is rather too narrow."""
    hours = np.array([one.at_s for one in moments]) / 3600
    megabytes = np.array([one.uss_mib for one in moments]) * 2**20 / 1e6
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    steepness = float((centred * megabytes).sum()) / spread
    left = megabytes - megabytes.mean() - steepness * centred
    error = float(np.sqrt((left**2).sum() / (len(moments) - 2) / spread))
    return Slope(steepness, steepness - 1.96 * error, steepness + 1.96 * error)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--minutes", type=float, default=30.0, help="of load (default: %(default)g)")
    parser.add_argument("--warm-minutes", type=float, default=5.0, help="left out of the slope (default: %(default)g)")
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity (default: %(default)g)")
    parser.add_argument("--every-s", type=float, default=5.0, help="between two samples (default: %(default)g)")
    parser.add_argument("--nice", type=int, default=0, help="added to the priority of client and server")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Load, write ``soak.json`` with every sample; 1 if memory or descriptors grew, or a request failed."""
    folder = environments.cache() / "soak"
    served = {name: models.made(name, folder) for name in ("wide", "cnn")}
    # Given the folder, the server serves all models in it.
    first = dataclasses.replace(served["wide"], path=folder)
    try:
        with processes.niced(options.nice), contestants.serving(CONTESTANTS[OURS], first) as server:
            server.await_answer("json")
            os.sched_setaffinity(0, {processes.CLIENT_CPU})
            results = uvloop.run(_soak(server, served, options))
            server.check("json")
    except (contestants.NotServing, dialects.WrongAnswer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = {"question": (__doc__ or "").splitlines()[0], "origin": origin.described(), **results}
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "soak.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({name: value for name, value in results.items() if name != "samples"}, indent=1))
    return 0 if all(results["targets"].values()) else 1


async def _soak(server: Server, served: Mapping[str, models.Model], options: argparse.Namespace) -> dict[str, Any]:
    pool = connections.Connections(server.http_port, _CONNECTIONS)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        sends = [_send(pool, channel, server, served[name], protocol) for name, protocol in _MIX]
        chosen = random.Random(1)

        async def send() -> str:
            return await chosen.choices(sends, tuple(_MIX.values()))[0]()

        found = await load.closed(send, _WORKERS, _CLOSED_S, time.perf_counter)
        capacity = load.good_rate(found, 1.0, _CLOSED_S)
        print(f"capacity {capacity:.0f}/s", file=sys.stderr, flush=True)
        moments: list[Moment] = []
        before = processes.Clocks.now(server.trees)
        watch = asyncio.create_task(_watch(server, options.every_s, moments))
        errors, requests, late_ms = collections.Counter[str](), 0, 0.0
        # In parts, so that the client's own samples do not fill its memory.
        parts = math.ceil(options.minutes)
        for part in range(parts):
            due = arrivals.poisson(options.load * capacity, options.minutes / parts * 60, seed=part)
            samples = await load.drive(send, due, time.perf_counter)
            requests += len(samples)
            errors.update(sample.error for sample in samples if sample.error)
            late_ms = max(late_ms, float(np.percentile([sample.late_s for sample in samples], 99)) * 1e3)
        foreign = processes.Clocks.now(server.trees).foreign(before)
        watch.cancel()
        pool.close()
    return {
        "capacity": capacity,
        "rate": options.load * capacity,
        "requests": requests,
        "late_p99_ms": late_ms,
        "foreign": foreign,
        "errors": dict(errors),
        **judged(moments, options.warm_minutes * 60, sum(errors.values())),
        "samples": [dataclasses.asdict(one) for one in moments],
    }


def judged(moments: Sequence[Moment], warm_s: float, failed: int) -> dict[str, Any]:
    """Slope, descriptors and targets, from what was held after the warm-up.

    Descriptors are flat where their last quarter reaches nothing that was not reached before: a leak would, while
    connections come and go.
    """
    warm = [one for one in moments if one.at_s >= warm_s]
    grown, descriptors = slope(warm), [one.file_descriptors for one in warm]
    last = -(-len(warm) // 4)
    return {
        "slope": dataclasses.asdict(grown),
        "uss_mib": [warm[0].uss_mib, warm[-1].uss_mib],
        "file_descriptors": [max(descriptors[:-last]), max(descriptors[-last:])],
        "targets": {
            "memory slope < 1 MB/h": grown.mb_per_hour < 1,
            "file descriptors flat": max(descriptors[-last:]) <= max(descriptors[:-last]),
            "no request failed": not failed,
        },
    }


async def _watch(server: Server, every_s: float, moments: list[Moment]) -> None:
    began = time.monotonic()
    while True:
        uss_mib = sum(tree.uss_mib() for tree in server.trees)
        descriptors = sum(tree.file_descriptors() for tree in server.trees)
        moments.append(Moment(time.monotonic() - began, uss_mib, descriptors))
        await asyncio.sleep(every_s)


def _send(pool: connections.Connections, channel: Any, server: Server, model: models.Model, protocol: str) -> Send:
    if protocol != _HTTP2:
        request = connections.prepared(dialects.request(protocol, model), server.http_port)
        return lambda: pool.send(request)
    call = channel.unary_unary(dialects.GRPC_METHOD)
    message = dialects.request("grpc", model).message

    async def send() -> str:
        try:
            await call(message, timeout=30.0)
        except grpc.RpcError as error:
            return f"gRPC {error.code().value[0]}"
        return ""

    return send
