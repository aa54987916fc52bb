"""Does a search find what serves cheapest, and what does it spend against an exhaustive one?

Every form of an example is made and evaluated as a user would, ``penstock build``: each structure (as it is, channels
pruned by each ratio) in each kind of numbers on each engine; where nothing can be pruned or quantized, what the example
names on each engine. Then each form that keeps the quality is measured at every batch size on one thread and on all,
the exhaustive table. A *measurement* is one cell of it, (form, threads, batch), 15 interleaved rounds.

The search is then replayed on this table, by the very functions that decide in a build: which form to make next
(``serving.variants.search``), and which cell to measure next (``serving.variants.choosing``). What it picks is held
against the cheapest cell of the whole table, in CPU time of a sample, which the objective ``cost`` counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from benchmarks import origin
from serving.engines import artifact, cpu
from serving.variants import choosing, profiling, recipe, search
from serving.variants.choosing import Aim, Cell, Known, Took
from serving.variants.recipe import Location, Lower, Pass, Search, Training, Variant
from serving.variants.search import Facts, Tried

_EXAMPLES = Path(__file__).parents[1] / "examples"
_SOURCE, _SEARCH = "source", "auto"
_FINISHES = {"digits": ("int8",)}
"""Kinds of integers that are made, where it is not all: with four structures each is eight forms more."""
MOST_APART, MOST_SPENT = 1.05, 1 / 3
"""What is promised of the pick's cost, and of the measurements."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--examples", default="digits,pose,tabular", help="names, with commas (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")
    parser.add_argument("--store", type=Path, help="where to build, and to go on after an end (default: a new folder)")


def run(options: argparse.Namespace) -> int:
    """Measure, write ``search.json``; 0 if every pick and its price are within what is promised."""
    file = options.results / "search.json"
    before: dict[str, Any] = json.loads(file.read_text())["examples"] if file.exists() else {}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.examples.split(","):
            found[name] = _example(name, options.store or Path(folder))
            told = {key: value for key, value in found[name].items() if key not in ("table", "origin", "machine")}
            print(f"{name}: {json.dumps(told, indent=1)}", flush=True)
    results = {"question": (__doc__ or "").splitlines()[0], "examples": dict(sorted({**before, **found}.items()))}
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    kept = all(one["apart"] <= MOST_APART and one["spent"] <= MOST_SPENT for one in found.values())
    return 0 if kept else 1


def forms(asked: Search, facts: Facts, finishes: Sequence[str] | None = None) -> list[Variant]:
    """All that a search could try, and what it leaves out, by the names it gives."""
    finish = [one for one in search.finishes(asked.calibration, facts) if finishes is None or one.name in finishes]
    found = []
    for structure in (None, *search.structures(asked.training, facts)):
        for numbers in (None, *finish):
            found += [_form(structure, numbers), _form(structure, numbers, _lowered("openvino"))]
        if facts.computes_bf16:
            found.append(_form(structure, _lowered("openvino-bf16", precision="bf16")))
        integers = _lowered("litert-int8", "litert", precision="int8", calibration=asked.calibration)
        found += [_form(structure, _lowered("litert")), _form(structure, integers)]
    return [one for one in found if one.passes]


def _form(*parts: Variant | None) -> Variant:
    given = [one for one in parts if one is not None]
    name = "-".join([_SEARCH, *(one.name for one in given)])
    return Variant(name=name, passes=tuple(step for one in given for step in one.passes))


def _lowered(name: str, target: str = "openvino", **told: Any) -> Variant:
    return Variant(name=name, passes=(Pass(lower=Lower(target=target, **told)),))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a search would have made and measured."""

    made: list[str]
    measured: dict[Cell, Took]
    pick: Cell


def replayed(table: Known, tried: Mapping[str, Tried], named: Sequence[str], asked: Search, facts: Facts) -> Replayed:
    """The search on a table of all cells; ``tried`` has all forms, ``named`` those that are measured in any case."""
    made: list[Tried] = []
    while (variant := search.following(_SEARCH, asked, facts, made)) is not None:
        made.append(tried[variant.name])
    names = [*named, *(one.variant.name for one in made if one.keeps)]
    known: dict[Cell, Took] = {}
    aim = _aim()
    while cells := choosing.following(names, known, aim):
        known.update({cell: table[cell] for cell in cells})
    pick = choosing.best(known, aim, names)
    assert pick is not None
    return Replayed([one.variant.name for one in made], known, pick)


def _aim() -> Aim:
    return Aim(profiling.SIZES, len(os.sched_getaffinity(0)))


def _example(name: str, store: Path) -> dict[str, Any]:
    folder = _EXAMPLES / name
    spec = yaml.safe_load((folder / "model.yaml").read_text())["spec"]
    source = folder / spec["source"]["uri"]
    nodes = onnx.load(source, load_external_data=False).graph.node if source.suffix == ".onnx" else ()
    engines = ("openvino", "litert")
    facts = Facts(frozenset(one.op_type for one in nodes), False, cpu.computes_bf16(), engines)
    asked = Search(calibration=_data(folder, "calibration"), training=_training(folder))
    named = [{"name": _SOURCE}]
    if nodes:
        every = [recipe.plain(one) for one in forms(asked, facts, _FINISHES.get(name))]
    else:
        every = [one for one in spec["variants"] if "source" in one]
        named += every
        every = every + [
            {**one, "name": f"{one['name']}-{target}", "passes": [{"lower": {"target": target}}]}
            for one in named
            for target in engines
        ]
    report = built(folder, {**spec, "variants": [{"name": _SOURCE}, *every]}, store)
    rule = report["evaluation"]
    keeping = {one["name"]: one for one in report["variants"] if keeps(one, rule)}
    table = _table(list(keeping.values()), folder)
    tried = {
        one["name"]: Tried(Variant(name=one["name"]), one["name"] in keeping, one.get("bytes", 0), _excluded(one))
        for one in report["variants"]
    }
    always = [one["name"] for one in named if one["name"] in keeping]
    found = replayed(table, tried, always, asked, facts)
    best = choosing.best(table, _aim(), keeping)
    assert best is not None
    return {
        "origin": origin.described(),
        "machine": report["machine"],
        "tools": report["tools"],
        "forms": {"all": len(report["variants"]), "keeping": len(keeping), "madeBySearch": found.made},
        "refused": {one["name"]: one["reason"] for one in report["variants"] if one["name"] not in keeping},
        "measurements": {"exhaustive": len(table), "search": len(found.measured)},
        "best": _cell(best, table, keeping),
        "pick": _cell(found.pick, table, keeping),
        "apart": round(choosing.cost(found.pick, table) / choosing.cost(best, table), 4),
        "spent": round(len(found.measured) / len(table), 4),
        "table": [_cell(cell, table, keeping) for cell in sorted(table, key=dataclasses.astuple)],
    }


def _data(folder: Path, name: str) -> Location | None:
    file = folder / f"{name}.npz"
    return Location(uri=str(file)) if file.exists() else None


def _training(folder: Path) -> Training | None:
    data = _data(folder, "train")
    return Training(data=data) if data else None


def built(folder: Path, spec: Mapping[str, Any], store: Path) -> dict[str, Any]:
    """The report of a build of the example with these variants."""
    spec = _absolute(
        folder, {key: spec[key] for key in ("source", "contract", "variants", "evaluation", "runtime") if key in spec}
    )
    manifest = store / f"{folder.name}.yaml"
    store.mkdir(parents=True, exist_ok=True)
    about = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model", "metadata": {"name": folder.name}}
    manifest.write_text(yaml.safe_dump({**about, "spec": spec}))
    command = [sys.executable, "-m", "operators.cli.main", "build", str(manifest), "--store", str(store), "-o", "json"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def _absolute(folder: Path, said: Any) -> Any:
    """The document with files named from anywhere, and nothing said that is nothing."""
    if isinstance(said, dict):
        found = {key: _absolute(folder, value) for key, value in said.items() if value is not None}
        return {**found, "uri": str(folder / said["uri"])} if "uri" in said else found
    return [_absolute(folder, one) for one in said] if isinstance(said, (list, tuple)) else said


def _excluded(one: Mapping[str, Any]) -> int:
    return max((len(made.get("excluded", ())) for made in one["made"]), default=0)


def keeps(one: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Whether a variant of the report was measured and keeps the quality."""
    quality, worst = one.get("quality"), rule.get("worstSlice")
    if one["name"] == _SOURCE:
        return True
    if not quality or "cpuMs" not in one:
        return False
    bounds = [(quality["dropUpperBound"], rule["maxDrop"])]
    bounds += [(quality["worstSlice"]["dropUpperBound"], worst["maxDrop"])] if worst else []
    return all(bound <= most for bound, most in bounds)


def _table(kept: Sequence[Mapping[str, Any]], folder: Path) -> dict[Cell, Took]:
    """All cells: on one thread as the build measured them, on all cores measured here in the same way."""
    table = {
        Cell(one["name"], 1, int(size)): Took(ms, one["wallMs"][size])
        for one in kept
        for size, ms in one["cpuMs"].items()
    }
    models = {one["name"]: Path(one["uri"].removeprefix("file://")) for one in kept}
    (spec,) = artifact.load(next(iter(models.values()))).signature.inputs
    with np.load(folder / "eval.npz") as data:
        samples = {spec.name: np.ascontiguousarray(data["x"][: max(profiling.SIZES)])}
    cores = _aim().cores
    found = profiling.measure(models, samples, cores, lambda share: None, profiling.SIZES)
    return table | {Cell(name, cores, size): took for name, each in found.items() for size, took in each.items()}


def _cell(cell: Cell, table: Known, kept: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    sample_ms = choosing.cost(cell, table)
    engine = kept[cell.form]["engine"]
    return {**dataclasses.asdict(cell), "engine": engine, "sampleMs": round(sample_ms, 5)}
