"""Which engine does the runtime ``auto`` take, and what does a broken one cost; of each: how soon is it replaced?

``--ask choice``: examples are built with ``runtime: auto``, and what the build selects (form, batch size, threads) is
held against the cheapest of all forms that keep the quality, at every batch size, on one thread and on all, measured
anew in interleaved rounds: CPU time of a sample, which the objective counts.

``--ask faults``: a Model on each engine under ``penstock up``, with one replica, and another Model beside it, both
under load over REST and gRPC. The engine's processes are killed, and made to hang (SIGSTOP). *Detected* is when the
status says that no replica is ready, *replaced* when a request is answered again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import itertools
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

from benchmarks import origin, search
from serving.contract import Env
from serving.engines import artifact, cpu
from serving.variants import choosing, profiling
from serving.variants.choosing import Cell, Took
from tests.engines import started
from tests.rig import local_mode
from tests.rig.load import Load
from tests.rig.local_mode import Local

_EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_APART = 1.05
"""What is promised of the selected form's CPU time, against the best of all."""
_RATE = 40.0
_POLL_S = 0.01
_CALM_S = 5.0
_FAULTS = {"killed": signal.SIGKILL, "hung": signal.SIGSTOP}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--ask", choices=("choice", "faults"), action="append", help="(default: both)")
    parser.add_argument("--examples", default="digits,pose,text", help="names, with commas (default: %(default)s)")
    parser.add_argument(
        "--engines", default=",".join(started.ENGINES), help="names, with commas (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="faults of each kind (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Measure, write ``engines.json``; 0 if every pick is within what is promised, and no other Model suffered."""
    file = options.results / "engines.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    kept = True
    with tempfile.TemporaryDirectory(prefix="penstock-engines-") as folder:
        if "choice" in (options.ask or ("choice",)):
            chosen = {name: choice(name, Path(folder)) for name in options.examples.split(",")}
            kept &= all(one["apart"] <= MOST_APART for one in chosen.values())
            results["choice"] = {"origin": origin.described(), "examples": chosen}
        if "faults" in (options.ask or ("faults",)):
            found = {}
            for engine in options.engines.split(","):
                found[engine] = faults(engine, Path(folder) / f"up-{engine}", options.rounds)
                print(f"{engine}: {json.dumps(found[engine])}", flush=True)
            kept &= not any(one["otherFailed"] for of in found.values() for one in of.values())
            results["faults"] = {"origin": origin.described(), "engines": found}
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if kept else 1


def choice(name: str, store: Path) -> dict[str, Any]:
    """What ``auto`` selects for an example, and what is cheapest of all."""
    folder = _EXAMPLES / name
    spec = yaml.safe_load((folder / "model.yaml").read_text())["spec"]
    quantized = {"quantize": {"calibration": {"uri": "calibration.npz"}}}
    variants = [{"name": "source"}, {"name": "int8", "passes": [quantized]}]
    report = search.built(folder, {**spec, "variants": variants, "runtime": "auto"}, store)
    keeping = {one["name"]: one for one in report["variants"] if search.keeps(one, report["evaluation"])}
    table = _table({name: Path(one["uri"].removeprefix("file://")) for name, one in keeping.items()}, folder)
    picked = report["choice"]
    pick = Cell(report["selected"], picked["threads"], picked["batch"])
    best = min(table, key=lambda cell: choosing.cost(cell, table))
    engine_of = {name: one["engine"] for name, one in keeping.items()}
    found = {
        "pick": _told(pick, table, engine_of),
        "best": _told(best, table, engine_of),
        "apart": round(choosing.cost(pick, table) / choosing.cost(best, table), 4),
        "forms": {one["name"]: one["reason"] for one in report["variants"]},
        "table": [_told(cell, table, engine_of) for cell in sorted(table, key=dataclasses.astuple)],
    }
    print(f"{name}: {found['pick']} against {found['best']}: {found['apart']}", flush=True)
    return found


def _table(models: dict[str, Path], folder: Path) -> dict[Cell, Took]:
    """Every form at every batch size, on one thread and on all."""
    (spec,) = artifact.load(next(iter(models.values()))).signature.inputs
    with np.load(folder / "eval.npz") as data:
        samples = {spec.name: np.ascontiguousarray(data["x"][: max(profiling.SIZES)])}
    table: dict[Cell, Took] = {}
    for threads in sorted({1, cpu.limit()}):
        found = profiling.measure(models, samples, threads, lambda share: None, profiling.SIZES)
        table |= {Cell(name, threads, size): took for name, each in found.items() for size, took in each.items()}
    return table


def _told(cell: Cell, table: dict[Cell, Took], engine_of: dict[str, str]) -> dict[str, Any]:
    said = {**dataclasses.asdict(cell), "engine": engine_of[cell.form]}
    return {**said, "sampleMs": round(choosing.cost(cell, table), 5)}


def faults(engine: str, folder: Path, rounds: int) -> dict[str, Any]:
    """What each kind of fault of an engine costs."""
    folder.mkdir(parents=True)
    (folder / "neighbour").mkdir()
    for name, runtime in (("digits", engine), ("other", "onnxruntime")):
        document = yaml.safe_load((started.DIGITS / "model.yaml").read_text())
        document["metadata"]["name"] = name
        spec = document["spec"] | {"runtime": runtime, "variants": [{"name": "fp32"}]}
        spec["source"]["uri"] = str(started.DIGITS / "model.onnx")
        spec["evaluation"]["dataset"]["uri"] = str(started.DIGITS / "eval.npz")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document | {"spec": spec}))
    with local_mode.running(folder) as local:
        local.up(str(folder / "digits.yaml"), str(folder / "other.yaml"))
        _wait(lambda: local.condition("Ready", "digits")["status"] == "True", 600)
        local.serving("other")
        calm = asyncio.run(_under_load(local, lambda: threading.Event().wait(_CALM_S)))
        found: dict[str, Any] = {}
        for kind, number in _FAULTS.items():
            breaking = functools.partial(_broken, local, number)
            each = [asyncio.run(_under_load(local, breaking)) for _ in range(rounds)]
            found[kind] = {
                "detectedS": [round(one["done"][0], 3) for one in each],
                "replacedS": [round(one["done"][1], 3) for one in each],
                "failed": [one["failed"] for one in each],
                "sent": [one["sent"] for one in each],
                "otherSent": sum(one["otherSent"] for one in each),
                "otherFailed": sum(one["otherFailed"] for one in each),
                "otherP99Ms": [one["otherP99Ms"] for one in each],
                "otherP99CalmMs": calm["otherP99Ms"],
            }
    return found


async def _under_load(local: Local, what: Callable[[], Any]) -> dict[str, Any]:
    """What came of requests to both Models while ``what`` was done."""
    ended = asyncio.Event()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", rate=_RATE, tolerance=1e-4)
    running = asyncio.create_task(load.run(ended.is_set))
    beside = asyncio.create_task(_other(local, ended))
    while load.sent < _RATE:
        await asyncio.sleep(_POLL_S)
    done = await asyncio.to_thread(what)
    ended.set()
    await running
    took, failed = await beside
    return {
        "done": done,
        "sent": load.sent,
        "failed": len(load.failures),
        "otherSent": len(took) + failed,
        "otherFailed": failed,
        "otherP99Ms": round(1000 * float(np.percentile(took, 99)), 2),
    }


async def _other(local: Local, ended: asyncio.Event) -> tuple[list[float], int]:
    """Seconds of each answer of the other Model, and how many failed."""
    took, failed = list[float](), 0
    body = (started.DIGITS / "seven.json").read_bytes()
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{local.port}", timeout=30) as client:
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            if ended.is_set():
                break
            sent = time.monotonic()
            answer = await client.post("/v2/models/other/infer", content=body)
            took.append(time.monotonic() - sent)
            failed += answer.status_code != 200
    return took, failed


def _broken(local: Local, number: signal.Signals) -> tuple[float, float]:
    """Seconds until the fault shows in the status, and until requests are answered again."""
    victims = list(_processes(local))
    body = (started.DIGITS / "seven.json").read_bytes()
    before = _restarts(local)
    began = time.monotonic()
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(number)
    _wait(lambda: not local.model("digits")["status"].get("readyReplicas") or _restarts(local) > before, 120)
    detected = time.monotonic() - began

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"http://127.0.0.1:{local.port}/v2/models/digits/infer", content=body).status_code == 200
        return False

    _wait(answers, 120)
    replaced = time.monotonic() - began
    _wait(lambda: local.condition("Ready", "digits")["status"] == "True", 120)
    return detected, replaced


def _restarts(local: Local) -> int:
    return sum(one.get("restarts", 0) for one in local.model("digits")["status"].get("revisions", ()))


def _processes(local: Local) -> Iterator[psutil.Process]:
    """What computes for the Model on the engine: its server's processes, and theirs."""
    for pid in local.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.environ().get(Env.MODEL) == "digits":
                yield from (process, *process.children(recursive=True))


def _wait(holds: Callable[[], object], within_s: float) -> None:
    pause, end = threading.Event(), time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {within_s:g} s")
        pause.wait(_POLL_S)
