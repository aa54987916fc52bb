"""How fast is Penstock beside its peers, on the same processor and the same work?

Writes ``serving.json`` (medians and ratios) and ``serving.samples.jsonl`` (every measurement) into a folder, and the
tables and plots that ``render`` makes from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path

import grpc
import httpx

from benchmarks import (
    contestants,
    dialects,
    environments,
    generators,
    interleaving,
    models,
    origin,
    processes,
    ratios,
    rendering,
)
from benchmarks import workloads as asked
from benchmarks.contestants import CONTESTANTS, OURS

RESULTS = Path("benchmarks/results")
_FAILURES = (
    contestants.NotServing,
    dialects.WrongAnswer,
    generators.Unusable,
    grpc.RpcError,
    httpx.HTTPError,
    subprocess.CalledProcessError,
)
"""What ends a workload and not the run. What it measured until then says nothing, for its answers were not checked."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--peers", type=_names, metavar="NAME,…", help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument(
        "--workloads", type=_names, metavar="NAME,…", help=f"of {', '.join(one.name for one in asked.WORKLOADS)}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of one measurement (default: %(default)s)")
    parser.add_argument(
        "--nice", type=int, default=0, help="added to the priority of all that runs; below 0 as root (default: 0)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write to (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Measure, write and render; 1 if a target was missed or a workload could not be measured."""
    try:
        chosen = asked.selected(options.peers, options.workloads)
        generators.require()
    except (asked.Unknown, generators.Unusable) as error:
        _tell(f"error: {error}")
        return 2
    folder = environments.cache() / "models"
    options.results.mkdir(parents=True, exist_ok=True)
    samples: list[ratios.Sample] = []
    failures: dict[str, str] = {}
    with processes.niced(options.nice), (options.results / "serving.samples.jsonl").open("w") as raw:
        for workload in chosen:
            _tell(f"{workload.name}: {workload.about}")
            model = models.made(workload.model, folder)
            try:
                for sample in interleaving.measure(workload, model, options.rounds, options.seconds, _tell):
                    samples.append(sample)
                    print(json.dumps(dataclasses.asdict(sample)), file=raw, flush=True)
            except _FAILURES as error:
                _tell(f"error: {workload.name}: {error}")
                failures[workload.name] = str(error)
        compute_us = {name: models.compute_us(models.made(name, folder)) for name in {one.model for one in chosen}}
    taken = ratios.rows([one for one in samples if one.workload not in failures], OURS)
    about = origin.described()
    peers = sorted({CONTESTANTS[row.peer].environment for row in taken})
    results = {
        "question": (__doc__ or "").splitlines()[0],
        "origin": {**about, "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")},
        "failures": failures,
        "workloads": {one.name: one.about for one in chosen if any(row.workload == one.name for row in taken)},
        "compute_us": compute_us,
        "rows": [{**dataclasses.asdict(row), "commit": about["commit"], "machine": about["machine"]} for row in taken],
        "versions": {peer: environments.frozen(peer) for peer in peers},
    }
    (options.results / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    rendering.render(options.results)
    missed = [figure for row in taken for figure in row.figures.values() if figure.met is False]
    return 1 if missed or failures else 0


def _names(text: str) -> list[str]:
    return text.split(",")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
