"""One interleaved run: every contestant of a workload is up, and each round asks each of them once, in turn.

A round begins with another contestant than the one before. Servers share one processor, the generator has another.
Answers are checked before the first round and after the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from benchmarks import contestants, dialects, environments, generators, models, processes, routing
from benchmarks.contestants import CONTESTANTS, Server
from benchmarks.ratios import Sample
from benchmarks.workloads import Kind, Workload

_WARM_S = 1
_One = TypeVar("_One")


def measure(
    workload: Workload, model: models.Model, rounds: int, seconds: int, told: Callable[[str], None]
) -> Iterator[Sample]:
    """Samples as they come; ``told`` hears of each.

    Raises ``NotServing``, ``WrongAnswer`` or ``Unusable`` where a comparison would mean nothing.
    """
    if workload.kind == Kind.START:
        yield from _starts(workload, model, rounds, told)
        return
    with contextlib.ExitStack() as stack:
        servers = []
        for name in workload.contestants:  # one after the other, for a server may try itself before it serves
            server = stack.enter_context(_up(workload, name, model))
            server.await_answer(workload.protocol)
            for tree in server.trees:
                tree.follow()
            servers.append(server)
        yield from _rounds(workload, servers, rounds, seconds, told)
        for server in servers:
            server.check(workload.protocol)


@contextlib.contextmanager
def _up(workload: Workload, name: str, model: models.Model) -> Iterator[Server]:
    with contestants.serving(CONTESTANTS[name], model) as server, contextlib.ExitStack() as stack:
        yield stack.enter_context(routing.routed(server)) if workload.kind == Kind.ROUTED else server


def rotated(ones: Sequence[_One], number: int) -> Sequence[_One]:
    """Their order in a round."""
    first = number % len(ones)
    return [*ones[first:], *ones[:first]]


def _rounds(
    workload: Workload, servers: Sequence[Server], rounds: int, seconds: int, told: Callable[[str], None]
) -> Iterator[Sample]:
    for server in servers:
        _load(workload, server, _WARM_S)
    for number in range(rounds):
        for server in rotated(servers, number):
            before = processes.Clocks.now(server.trees)
            run = _load(workload, server, seconds)
            after = processes.Clocks.now(server.trees)
            if run.failed:
                raise generators.Unusable(f"{server.contestant.name}: {run.failed} of {run.requests} requests failed")
            cpu_s = after.servers_s - before.servers_s
            figures = {"cpu_us": cpu_s / run.requests * 1e6, "p50_ms": run.p50_ms, "p99_ms": run.p99_ms}
            if workload.kind != Kind.OPEN:  # there the rate is what was asked for
                figures["rate"] = run.requests / run.seconds
            sample = Sample(workload.name, server.contestant.name, number, figures, after.foreign(before))
            told(f"  {number} {sample.contestant:<18}{run.requests / run.seconds:>9.0f}/s{figures['cpu_us']:>9.0f} µs")
            yield sample


def _load(workload: Workload, server: Server, seconds: int) -> generators.Run:
    if workload.kind == Kind.OPEN:
        return generators.open_loop(
            server.request(workload.protocol), server.port(workload.protocol), workload.rate, seconds
        )
    asked = dialects.request(server.contestant.dialects[workload.protocol], server.model)
    generate = generators.grpc if workload.protocol == "grpc" else generators.http
    return generate(asked, server.port(workload.protocol), workload.connections, seconds)


def _starts(workload: Workload, model: models.Model, rounds: int, told: Callable[[str], None]) -> Iterator[Sample]:
    # Bytecode has a place of its own and is there from a start before the first: what installers and the environment
    # say of it decides nothing.
    folder = environments.cache() / "bytecode"
    kept = {"PYTHONPYCACHEPREFIX": str(folder), "PYTHONDONTWRITEBYTECODE": ""}
    for name in workload.contestants:
        with contestants.serving(CONTESTANTS[name], model, None, kept) as server:
            server.await_answer(workload.protocol)
    for number in range(rounds):
        for name in rotated(workload.contestants, number):
            before = processes.Clocks.now(())
            with contestants.serving(CONTESTANTS[name], model, None, kept) as server:
                start_s = server.await_answer(workload.protocol)
                after = processes.Clocks.now(server.trees)
                pss_mib = sum(tree.pss_mib() for tree in server.trees)
            figures = {"start_s": start_s, "start_cpu_s": after.servers_s, "pss_mib": pss_mib}
            told(f"  {number} {name:<18}{start_s:>9.2f} s{pss_mib:>9.0f} MiB")
            yield Sample(workload.name, name, number, figures, after.foreign(before))
