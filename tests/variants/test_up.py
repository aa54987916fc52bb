"""``penstock up`` makes the variants of a Model while its source serves, and moves to the best of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.rig.local_mode import Local
from tests.variants.test_build import quick

pytestmark = pytest.mark.timeout(600)


def variants(local: Local) -> dict[str, Any]:
    return {one["name"]: one for one in local.model("quick")["status"].get("variants", [])}


def test_the_source_serves_until_the_better_variant_takes_over(local: Local, tmp_path: Path) -> None:
    local.up(str(quick(tmp_path)))
    local.until("the source serves", lambda: local.condition("Ready", "quick")["status"] == "True")
    assert local.model("quick")["status"]["variant"] == "fp32"
    assert local.condition("VariantsReady", "quick")["reason"] == "Building"
    local.serving("quick")
    status = local.model("quick")["status"]
    assert status["variant"] == "int8"
    assert status["gain"].endswith("x")
    assert variants(local)["int8"]["quality"]["dropUpperBound"] <= 0.01
    code, out, _ = local("get", "models")
    assert (code, out.split()[3]) == (0, "GAIN")


def test_up_killed_in_the_middle_of_a_build_goes_on_and_makes_nothing_twice(local: Local, tmp_path: Path) -> None:
    file = str(quick(tmp_path))
    killed = local.up(file)
    stages = local.data / "builds" / "stages"
    local.until("a variant is made", lambda: any(stages.glob("quantize-*/facts.json")))
    killed.kill()
    killed.wait()
    made = {one.name: one.stat().st_mtime_ns for one in stages.glob("[!.]*")}
    local.up(file)
    local.serving("quick")
    assert local.model("quick")["status"]["variant"] == "int8"
    assert made.items() <= {one.name: one.stat().st_mtime_ns for one in stages.glob("[!.]*")}.items()


def test_a_restart_serves_the_chosen_variant_without_another_build(local: Local, tmp_path: Path) -> None:
    file = str(quick(tmp_path))
    first = local.up(file)
    chosen = local.serving("quick")
    first.send_signal(signal.SIGTERM)
    first.wait()
    report = next((local.data / "builds" / "reports").glob("*.json"))
    written = report.stat().st_mtime_ns
    local.up()
    assert local.serving("quick") == chosen
    assert report.stat().st_mtime_ns == written


def test_data_that_cannot_be_used_is_told_and_the_source_goes_on_serving(local: Local, tmp_path: Path) -> None:
    (tmp_path / "eval.npz").write_bytes(b"nonsense")
    local.up(str(quick(tmp_path, dataset=tmp_path / "eval.npz")))
    local.serving("quick")
    assert local.model("quick")["status"]["variant"] == "fp32"
    assert "is no dataset: .npz, Parquet, Arrow" in variants(local)["int8"]["reason"]
