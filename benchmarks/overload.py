"""What becomes of a server that is offered ten times what it can take?

One server on one processor, one client on the other, all rates found in the same run: the peak by a closed loop;
then, on an open loop with Poisson arrivals, 80 % of the peak, ten times the peak, and 80 % again. Of the flood are
asked: good answers as a share of the peak, p99 of what was admitted beside its value at 80 %, p99 of what was
refused; and after the flood, how long until the last request that was not answered well.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import uvloop

from benchmarks import arrivals, connections, contestants, dialects, environments, load, models, origin, processes
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.load import Sample

_CLOSED_WORKERS = 32
_CLOSED_S = 10.0
_CONNECTIONS = 512
_EXPECTED = ("HTTP 429", "HTTP 503", "gRPC 8", "gRPC 14")


@dataclasses.dataclass(frozen=True)
class Phases:
    """When, on the clock of the samples, what was offered."""

    calm_s: float
    flood_s: float

    @property
    def flood_ends_s(self) -> float:
        return self.calm_s + self.flood_s

    @property
    def ends_s(self) -> float:
        return self.flood_ends_s + self.calm_s

    def schedule(self, calm_rate: float, flood_rate: float) -> tuple[float, ...]:
        """All moments at which a request leaves."""
        calm = arrivals.poisson(calm_rate, self.calm_s, seed=1)
        flood = arrivals.poisson(flood_rate, self.flood_s, seed=2)
        after = arrivals.poisson(calm_rate, self.calm_s, seed=3)
        return (*calm, *(self.calm_s + due for due in flood), *(self.flood_ends_s + due for due in after))


@dataclasses.dataclass(frozen=True)
class Overload:
    """What the flood did."""

    peak_rate: float
    goodput: float
    """Good answers a second in the flood, as a share of the peak."""
    calm_p99_ms: float
    admitted_p99_ms: float
    admitted_ratio: float
    """p99 of what was admitted in the flood, as a multiple of its value in the calm."""
    refused_p99_ms: float
    recovery_s: float
    """From the end of the flood to the last request due after it that was not answered well."""
    errors: Mapping[str, int]
    calm_errors: int
    late_p99_ms: float
    """What the client could not keep up with; latencies hold it."""
    foreign: float
    """Processors that others used meanwhile; above 0.15 the figures say little."""

    @property
    def met(self) -> Mapping[str, bool]:
        """Each target, and whether it was met."""
        return {
            "goodput ≥ 90 % of the peak": self.goodput >= 0.9,
            "admitted p99 ≤ 2 × its value at 80 %": self.admitted_ratio <= 2,
            "refused p99 < 20 ms": self.refused_p99_ms < 20,
            "full goodput within 2 s after": self.recovery_s <= 2,
            "nothing but refusals": all(error in _EXPECTED for error in self.errors),
        }


def judged(samples: Sequence[Sample], phases: Phases, peak_rate: float, foreign: float) -> Overload:
    """The figures of one run."""
    calm = [one for one in samples if one.due_s < phases.calm_s]
    flood = [one for one in samples if phases.calm_s <= one.due_s < phases.flood_ends_s]
    after = [one for one in samples if one.due_s >= phases.flood_ends_s]
    calm_p99, admitted_p99 = (_p99_ms([one for one in part if not one.error]) for part in (calm, flood))
    errors: dict[str, int] = {}
    for one in flood:
        if one.error:
            errors[one.error] = errors.get(one.error, 0) + 1
    return Overload(
        peak_rate=peak_rate,
        goodput=load.good_rate(samples, phases.calm_s, phases.flood_ends_s) / peak_rate,
        calm_p99_ms=calm_p99,
        admitted_p99_ms=admitted_p99,
        admitted_ratio=admitted_p99 / calm_p99,
        refused_p99_ms=_p99_ms([one for one in flood if one.error in _EXPECTED]),
        recovery_s=max((one.due_s - phases.flood_ends_s for one in after if one.error), default=0.0),
        errors=dict(sorted(errors.items())),
        calm_errors=sum(bool(one.error) for one in calm),
        late_p99_ms=float(np.percentile([one.late_s for one in samples], 99)) * 1e3,
        foreign=foreign,
    )


def _rounded(sample: Sample) -> list[float | str]:
    """To the microsecond; the digits beyond it would be most of the file."""
    return [round(value, 6) if isinstance(value, float) else value for value in dataclasses.astuple(sample)]


def _p99_ms(samples: Sequence[Sample]) -> float:
    return float(np.percentile([one.latency_s for one in samples], 99)) * 1e3 if samples else float("nan")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--contestant", choices=CONTESTANTS, default=OURS, help="(default: %(default)s)")
    parser.add_argument("--model", choices=models.NAMES, default="deep", help="(default: %(default)s)")
    parser.add_argument("--protocol", choices=("json", "binary"), default="json", help="(default: %(default)s)")
    parser.add_argument("--times", type=float, default=10.0, help="the peak (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the flood (default: %(default)g)")
    parser.add_argument("--calm-s", type=float, default=20.0, help="before and after it (default: %(default)g)")
    parser.add_argument("--nice", type=int, default=0, help="added to the priority of client and server")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Measure, write ``overload.json`` and its samples; 1 if a target was missed."""
    with processes.niced(options.nice):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    model = models.made(options.model, environments.cache() / "models")
    phases = Phases(options.calm_s, options.seconds)
    try:
        with contestants.serving(CONTESTANTS[options.contestant], model) as server:
            server.await_answer(options.protocol)
            os.sched_setaffinity(0, {processes.CLIENT_CPU})
            before = processes.Clocks.now(server.trees)
            peak, samples = uvloop.run(_measure(server, options.protocol, phases, options.times))
            foreign = processes.Clocks.now(server.trees).foreign(before)
            server.check(options.protocol)
    except (contestants.NotServing, dialects.WrongAnswer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    overload = judged(samples, phases, peak, foreign)
    results = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": origin.described(),
        "model": options.model,
        **dataclasses.asdict(overload),
        "targets": overload.met,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "overload.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    with gzip.open(options.results / "overload.samples.jsonl.gz", "wt") as raw:
        raw.writelines(json.dumps(_rounded(one)) + "\n" for one in samples)
    print(json.dumps(results, indent=1, ensure_ascii=False))
    return 0 if all(overload.met.values()) else 1


async def _measure(
    server: contestants.Server, protocol: str, phases: Phases, times: float
) -> tuple[float, tuple[Sample, ...]]:
    pool = connections.Connections(server.port(protocol), _CONNECTIONS)
    request = server.request(protocol)

    async def send() -> str:
        return await pool.send(request)

    clock = time.perf_counter
    found = await load.closed(send, _CLOSED_WORKERS, _CLOSED_S, clock)
    peak = load.good_rate(found, 1.0, _CLOSED_S)
    print(f"peak {peak:.0f}/s", file=sys.stderr, flush=True)
    samples = await load.drive(send, phases.schedule(0.8 * peak, times * peak), clock)
    pool.close()
    return peak, samples
