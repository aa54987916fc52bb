"""One interleaved run: every contestant of a workload is up, and each round asks each of them once, in turn.

A round begins with another contestant than the one before. Servers share one processor, the generator has another.
Answers are checked before the first round and after the last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from benchmarks import contestants, dialects, generators, models, processes, routing
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
            before, began = _Clocks.now(server), time.monotonic()
            run = _load(workload, server, seconds)
            took_s, after = time.monotonic() - began, _Clocks.now(server)
            if run.failed:
                raise generators.Unusable(f"{server.contestant.name}: {run.failed} of {run.requests} requests failed")
            cpu_s = after.server_s - before.server_s
            figures = {"cpu_us": cpu_s / run.requests * 1e6, "p50_ms": run.p50_ms, "p99_ms": run.p99_ms}
            if workload.kind != Kind.OPEN:  # there the rate is what was asked for
                figures["rate"] = run.requests / run.seconds
            sample = Sample(workload.name, server.contestant.name, number, figures, after.foreign(before, took_s))
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
    for number in range(rounds):
        for name in rotated(workload.contestants, number):
            before, began = processes.machine_busy_s(), time.monotonic()
            own = time.process_time()
            with contestants.serving(CONTESTANTS[name], model, cpu=None) as server:
                start_s = server.await_answer(workload.protocol)
                took_s = time.monotonic() - began
                cpu_s = sum(tree.cpu_s() for tree in server.trees)
                busy_s = processes.machine_busy_s() - before - cpu_s - (time.process_time() - own)
                pss_mib = sum(tree.pss_mib() for tree in server.trees)
            figures = {"start_s": start_s, "start_cpu_s": cpu_s, "pss_mib": pss_mib}
            told(f"  {number} {name:<18}{start_s:>9.2f} s{pss_mib:>9.0f} MiB")
            yield Sample(workload.name, name, number, figures, max(0.0, busy_s / took_s))


@dataclasses.dataclass(frozen=True)
class _Clocks:
    """Processor time used so far, in seconds."""

    machine_s: float
    server_s: float
    generator_s: float
    own_s: float

    @classmethod
    def now(cls, server: Server) -> _Clocks:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(
            processes.machine_busy_s(),
            sum(tree.cpu_s() for tree in server.trees),
            ended.ru_utime + ended.ru_stime,
            time.process_time(),
        )

    def foreign(self, before: _Clocks, took_s: float) -> float:
        """Processors that were used by nobody of us."""
        ours = self.server_s + self.generator_s + self.own_s - before.server_s - before.generator_s - before.own_s
        return max(0.0, (self.machine_s - before.machine_s - ours) / took_s)
