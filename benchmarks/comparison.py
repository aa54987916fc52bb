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
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

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
    file, raw_file = options.results / "serving.json", options.results / "serving.samples.jsonl"
    before = json.loads(file.read_text()) if file.exists() else {}
    others = raw_file.read_text().splitlines(keepends=True) if raw_file.exists() else []
    names = {one.name for one in chosen}
    with processes.niced(options.nice), raw_file.open("w") as raw:
        raw.writelines(line for line in others if json.loads(line)["workload"] not in names)
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
    file.write_text(json.dumps(joined(before, results, names), indent=1) + "\n")
    rendering.render(options.results)
    missed = [figure for row in taken for figure in row.figures.values() if figure.met is False]
    return 1 if missed or failures else 0


def joined(before: Mapping[str, Any], now: Mapping[str, Any], measured: Set[str]) -> dict[str, Any]:
    """Results in which the workloads that were measured now stand beside those of an earlier run, in their order."""
    order = [one.name for one in asked.WORKLOADS]
    both = {
        part: {name: text for name, text in before.get(part, {}).items() if name not in measured} | now[part]
        for part in ("failures", "workloads")
    }
    rows = [row for row in before.get("rows", ()) if row["workload"] not in measured] + now["rows"]
    return {
        **now,
        "failures": both["failures"],
        "workloads": dict(sorted(both["workloads"].items(), key=lambda item: order.index(item[0]))),
        "compute_us": before.get("compute_us", {}) | now["compute_us"],
        "rows": sorted(rows, key=lambda row: order.index(row["workload"])),
        "versions": before.get("versions", {}) | now["versions"],
    }


def _names(text: str) -> list[str]:
    return text.split(",")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
