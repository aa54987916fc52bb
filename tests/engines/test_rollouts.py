"""One YAML of the digits, by one engine after the other: each is a rollout by steps, and no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import contract
from tests.engines import started
from tests.rig import local_mode
from tests.rig.load import Load
from tests.rig.local_mode import Local
from tests.rig.model_server import ROOT
from tests.rig.waiting import until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_mode.running(tmp_path_factory.mktemp("engines")) as running:
        yield running


def write(folder: Path, runtime: str) -> Path:
    """The digits of the example, run by ``runtime``."""
    document: dict[str, Any] = yaml.safe_load((started.DIGITS / "model.yaml").read_text())
    spec = document["spec"]
    spec["source"]["uri"] = str(started.DIGITS / "model.onnx")
    spec["evaluation"]["dataset"]["uri"] = str(started.DIGITS / "eval.npz")
    spec |= {"runtime": runtime, "variants": [{"name": "fp32"}], "batching": {"maxSize": 8}}
    spec["rollout"] = {"steps": [{"weight": 20, "for": "1s"}]}
    file = folder / f"{runtime}.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


async def test_the_digits_go_from_engine_to_engine_and_no_request_fails(local: Local, tmp_path: Path) -> None:
    files = {engine: write(tmp_path, engine) for engine in started.ENGINES}
    for name in contract.ENGINE_SUFFIXES:
        # What is slow is made beforehand: `penstock up` finds it done.
        words = [*started.PENSTOCK, "build", str(files[name]), "--store", str(local.data / "builds")]
        done = await asyncio.to_thread(subprocess.run, words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    first, *others = started.ENGINES
    await asyncio.to_thread(local.up, str(files[first]))
    revisions = [await asyncio.to_thread(local.serving, "digits")]
    ended, marks = asyncio.Event(), list[tuple[str, int]]()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", rate=50, tolerance=1e-4)
    running = asyncio.create_task(load.run(ended.is_set))
    with contextlib.ExitStack() as stack:
        stack.callback(ended.set)
        for engine in others:
            marks.append((f"{engine} is asked for", load.sent))
            await asyncio.to_thread(local, "apply", "-f", str(files[engine]))
            revisions.append(await asyncio.to_thread(local.serving, "digits"))
            sent = load.sent
            marks.append((f"{engine} serves", sent))

            async def more(sent: int = sent) -> bool:
                return load.sent > sent + 25

            await until(f"{engine} answers alone", more)
    await running

    assert len(set(revisions)) == len(started.ENGINES)
    assert load.failures == [], marks
    assert load.answers["first"] == load.sent
    states = {one["name"]: one["state"] for one in local.model("digits")["status"]["revisions"]}
    assert states[revisions[-1]] == "Serving"
