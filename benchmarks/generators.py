"""What makes requests, on a processor of its own: ``wrk`` for HTTP and ``h2load`` for gRPC, both closed-loop, and an
open loop of our own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from benchmarks import arrivals, connections, load, processes
from benchmarks.dialects import Request

_SCRIPT = Path(__file__).with_name("post.lua")
_SLACK_S = 60.0
_CONNECTIONS = 256


class Unusable(Exception):
    """A generator is missing, or its run says nothing."""


@dataclass(frozen=True)
class Run:
    """What one generator saw."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


def require() -> None:
    """Raises ``Unusable`` unless all generators are installed."""
    missing = [tool for tool in ("wrk", "h2load", "taskset") if shutil.which(tool) is None]
    if missing:
        raise Unusable(f"no {' and no '.join(missing)} on PATH; on Debian: apt install wrk nghttp2-client util-linux")


def http(request: Request, port: int, connections: int, seconds: int) -> Run:
    """``wrk``: each connection sends as soon as it has its answer."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        shape = (f"--connections={connections}", "--threads=1", f"--duration={seconds}s", "--timeout=30s")
        output = _run(
            ("wrk", *shape, "--latency", f"--script={_SCRIPT}", f"http://127.0.0.1:{port}{request.path}"),
            {"BODY": body.name, "HEADERS": headers},
            seconds,
        )
    return wrk_run(output)


def wrk_run(output: str) -> Run:
    """What ``post.lua`` printed."""
    found = re.search(r"^\{.*\}$", output, re.MULTILINE)
    if found is None:
        raise Unusable(f"wrk said nothing: {output[-500:]}")
    said = json.loads(found[0])
    return Run(said["requests"], said["failed"], said["duration_us"] / 1e6, said["p50_us"] / 1e3, said["p99_us"] / 1e3)


def grpc(request: Request, port: int, connections: int, seconds: int) -> Run:
    """``h2load``: connections with one stream each."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(request.body)
        headers = [word for name, value in request.headers.items() for word in ("-H", f"{name}: {value}")]
        shape = ("-t1", f"-c{connections}", "-m1", f"-D{seconds}", f"--log-file={log}", f"--data={body}")
        output = _run(("h2load", *shape, *headers, f"http://127.0.0.1:{port}{request.path}"), {}, seconds)
        return h2load_run(output, log.read_text())


def h2load_run(output: str, log: str) -> Run:
    """What ``h2load`` printed, and its log: start, status and microseconds of each request.

    A gRPC failure is a good HTTP answer; that answers are right is checked apart.
    """
    lines = [line.split() for line in log.splitlines()]
    took_us = np.array([int(line[2]) for line in lines if len(line) == 3 and line[1] == "200"])
    finished = re.search(r"^finished in ([\d.]+)(m?s)", output, re.MULTILINE)
    counted = re.search(r"^requests: .* (\d+) failed, (\d+) errored, (\d+) timeout", output, re.MULTILINE)
    if not took_us.size or finished is None or counted is None:
        raise Unusable(f"h2load said nothing: {output[-500:]}")
    seconds = float(finished[1]) / (1000 if finished[2] == "ms" else 1)
    p50, p99 = np.percentile(took_us, (50, 99)) / 1e3
    failed = int(counted[1]) + len([line for line in lines if len(line) == 3 and line[1] != "200"])
    return Run(int(took_us.size), failed, seconds, float(p50), float(p99))


def open_loop(request: bytes, port: int, rate: float, seconds: int) -> Run:
    """Poisson arrivals, the same for every server; latencies count from the moment a request was due."""
    arriving = arrivals.poisson(rate, seconds, seed=1)

    async def drive() -> Sequence[load.Sample]:
        pool = connections.Connections(port, _CONNECTIONS)
        try:
            return await load.drive(lambda: pool.send(request), arriving, time.perf_counter)
        finally:
            pool.close()

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processes.CLIENT_CPU})
    try:
        samples = uvloop.run(drive())
    finally:
        os.sched_setaffinity(0, allowed)
    took_ms = [sample.latency_s * 1e3 for sample in samples if not sample.error]
    if not took_ms:
        raise Unusable(f"no request to port {port} was answered well, the first with '{samples[0].error}'")
    p50, p99 = np.percentile(took_ms, (50, 99))
    return Run(len(took_ms), len(samples) - len(took_ms), float(seconds), float(p50), float(p99))


def _run(command: tuple[str, ...], environment: dict[str, str], seconds: int) -> str:
    result = subprocess.run(
        (*processes.pinned(processes.CLIENT_CPU), *command),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds + _SLACK_S,
        check=False,
    )
    if result.returncode:
        raise Unusable(f"{command[0]} ended with {result.returncode}: {result.stderr[-500:]}{result.stdout[-500:]}")
    return result.stdout
