"""What do metrics, log lines and traces cost a request?

The same server in several states: ``off`` hears nothing of a request's end and counts nothing, ``default`` is what
``penstock serve`` does, ``sampled`` adds a log line and a trace for one request in a hundred and metrics over OTLP,
``everything`` a line and a trace for each.

The differences are smaller than what a machine does to two measurements a second apart. So each state runs at the same
time as ``off``, both on one processor, each with a generator of its own, and whatever disturbs one disturbs both. Each
has half of the processor then: what a state costs a second, whatever the load (threads that wake up, exports), counts
twice. ``off again`` is ``off``: how far its ratio is from 1 is how far to trust the others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.server
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import contestants, dialects, generators, models, origin, processes, ratios
from benchmarks.contestants import Contestant, Server
from benchmarks.workloads import Kind, Workload

RESULTS = Path(__file__).parent / "results" / "telemetry.json"
OFF, AGAIN = "off", "off again"
_SILENCE = """
import sys
from serving import cli
from serving.telemetry import metrics, observing
observing.Observer.answered = observing.Observer.refused = lambda *_: None
metrics.ModelCounters.executed = lambda *_: None
sys.exit(cli.main(sys.argv[1:]))
"""
_DIALECTS = {"json": "json", "grpc-over-http1": "grpc"}
_SERVE = ("-m", "serving")
STATES: Mapping[str, tuple[Sequence[str], Sequence[str], Mapping[str, str]]] = {
    OFF: (("-c", _SILENCE), (), {}),
    AGAIN: (("-c", _SILENCE), (), {}),
    "default": (_SERVE, (), {}),
    "sampled": (
        _SERVE,
        ("--log-requests", "0.01"),
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
    ),
    "everything": (_SERVE, ("--log-requests", "1"), {"OTEL_TRACES_SAMPLER": "always_on"}),
}
"""How each is started: the program, its arguments, its environment."""
_EXPORTING = ("sampled", "everything")
WORKLOADS = tuple(
    Workload(name, about, Kind.LOAD, "mlp", protocol, connections, tuple(STATES))
    for name, about, protocol, connections in (
        ("json-mlp-c8", "REST JSON, mlp, 8 connections", "json", 8),
        ("json-mlp-c32", "REST JSON, mlp, 32 connections", "json", 32),
        ("grpc-http1-mlp-c8", "gRPC over HTTP/1.1, mlp, 8 connections", "grpc-over-http1", 8),
    )
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=RESULTS, help="where the figures go")


def run(options: argparse.Namespace) -> int:
    """Measure, write and print."""
    generators.require()
    os.sched_setaffinity(0, {processes.CLIENT_CPU})  # the collector's thread must not be where the servers are
    samples: dict[str, list[ratios.Sample]] = {state: [] for state in STATES if state != OFF}
    with tempfile.TemporaryDirectory() as scratch:
        model = models.made("mlp", Path(scratch))
        for workload in WORKLOADS:
            with contextlib.ExitStack() as stack:
                endpoint = stack.enter_context(_collector())
                servers = []
                for state in STATES:  # one after the other: a server decides by its own speed at start what it joins
                    servers.append(stack.enter_context(_serving(state, model, endpoint)))
                    servers[-1].await_answer("json")
                off, *others = servers
                for server, number in itertools.product(others, range(options.rounds)):
                    found = _round(workload, (off, server), options.seconds, number)
                    print(workload.name, number, *(f"{s.contestant} {s.figures['cpu_us']:.1f} µs" for s in found))
                    samples[server.contestant.name] += found
    rows = [
        {"workload": row.workload, "state": state, "rounds": row.rounds, **_figures(row)}
        for state, measured in samples.items()
        for row in ratios.rows(measured, state)
    ]
    document = {
        **origin.described(),
        "rows": rows,
        "samples": [dataclasses.asdict(sample) for measured in samples.values() for sample in measured],
    }
    options.to.write_text(json.dumps(document, indent=1) + "\n")
    for shown in rows:
        print(shown)
    return 0


def _round(workload: Workload, servers: Sequence[Server], seconds: int, number: int) -> list[ratios.Sample]:
    """Both servers at once."""
    asked = dialects.request(_DIALECTS[workload.protocol], servers[0].model)
    before = [processes.cpu_s(server.trees) for server in servers]
    with ThreadPoolExecutor(len(servers)) as pool:
        load = [pool.submit(generators.http, asked, s.http_port, workload.connections, seconds) for s in servers]
        runs = [one.result() for one in load]
    samples = []
    for server, used_s, run in zip(servers, before, runs, strict=True):
        if run.failed:
            raise generators.Unusable(f"{server.contestant.name}: {run.failed} of {run.requests} requests failed")
        cpu_us = (processes.cpu_s(server.trees) - used_s) / run.requests * 1e6
        figures = {"rate": run.requests / run.seconds, "cpu_us": cpu_us}
        samples.append(ratios.Sample(workload.name, server.contestant.name, number, figures, 0.0))
    return samples


def _figures(row: ratios.Row) -> dict[str, dict[str, float]]:
    """What a state has, what ``off`` has, and the ratio: below 1 the state is slower, or takes more."""
    return {
        name: {
            "state": round(figure.ours, 1),
            "off": round(figure.peer, 1),
            "ratio": round(figure.ratio, 3),
            "low": round(figure.low, 3),
            "high": round(figure.high, 3),
        }
        for name, figure in row.figures.items()
    }


@contextlib.contextmanager
def _serving(state: str, model: models.Model, endpoint: str) -> Iterator[Server]:
    program, more, environment = STATES[state]
    http_port, grpc_port = processes.free_ports(2)
    ports = ("--http-port", str(http_port), "--grpc-port", str(grpc_port))
    command = (sys.executable, *program, "serve", str(model.path), *ports, *more)
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if state in _EXPORTING else {}
    with tempfile.TemporaryDirectory(prefix="penstock-benchmark-", ignore_cleanup_errors=True) as scratch:
        started, about = time.monotonic(), {"PYTHONPATH": str(contestants.ROOT), **environment, **exporting}
        tree = processes.start(command, Path(scratch), about, processes.SERVER_CPU)
        try:
            yield Server(Contestant(state, _DIALECTS), model, (tree,), http_port, grpc_port, started, Path(scratch))
        finally:
            tree.end()


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """Something that takes what is exported and forgets it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """It says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
