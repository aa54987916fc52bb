"""``penstock build`` as a person runs it: the digits example, its report, and what happens when it is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
pytestmark = pytest.mark.timeout(900)
PENSTOCK = Path(sys.executable).with_name("penstock")


def build(file: Path, store: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(PENSTOCK), "build", str(file), "--store", str(store), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=850)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def report(store: Path) -> dict[str, Any]:
    ended = build(DIGITS / "model.yaml", store, "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def named(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in report["variants"] if one["name"] == name]
    return dict(found)


def test_the_quantized_digits_may_serve_with_the_proof(report: dict[str, Any]) -> None:
    int8 = named(report, "int8")
    assert int8["accepted"], int8["reason"]
    assert int8["quality"]["dropUpperBound"] <= 0.01
    assert int8["quality"]["worstSlice"]["dropUpperBound"] <= 0.05
    assert set(int8["cpuMs"]) == {"1", "2", "4", "8", "16", "32"}


def test_the_chosen_digits_are_a_tenth_in_size_and_cost(report: dict[str, Any]) -> None:
    chosen = named(report, report["selected"])
    assert chosen["accepted"], chosen["reason"]
    assert chosen["quality"]["dropUpperBound"] <= 0.01
    assert chosen["quality"]["worstSlice"]["drop"] <= 0.05
    assert chosen["gain"] >= 8
    assert 10 * chosen["bytes"] <= named(report, "fp32")["bytes"]


def test_each_refusal_says_why(report: dict[str, Any]) -> None:
    reasons = {one["name"]: one["reason"] for one in report["variants"] if not one["accepted"]}
    assert reasons["int8-dynamic"].endswith("times the CPU time of the source")
    assert "CPU time" in reasons["fp16"]
    assert reasons["sparse"].startswith("it loses ")
    assert "more than the 1.00 points allowed" in reasons["sparse"]
    assert {"fp16", "int8-dynamic", "sparse"} <= set(reasons)


def test_the_report_is_a_page_of_its_own(report: dict[str, Any]) -> None:
    page = Path(report["page"]).read_text()
    assert "<svg" in page
    assert "http" not in page
    assert all(one["name"] in page for one in report["variants"])


def test_a_second_build_makes_nothing_again(report: dict[str, Any], store: Path) -> None:
    ended = build(DIGITS / "model.yaml", store, "-o", "json")
    again = json.loads(ended.stdout)
    assert again["build"] == report["build"]
    assert all(step["again"] for one in again["variants"] for step in one["made"])


QUICK = """
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: quick}}
spec:
  source: {{uri: {source}}}
  variants:
    - name: fp32
    - name: int8
      passes: [{{slim: {{}}}}, {{quantize: {{calibration: {{uri: {calibration}}}}}}}]
  evaluation: {{dataset: {{uri: {dataset}}}}}
"""


def quick(folder: Path, **other: Path) -> Path:
    files = {"source": DIGITS / "model.onnx", "calibration": DIGITS / "calibration.npz", "dataset": DIGITS / "eval.npz"}
    file = folder / "model.yaml"
    file.write_text(QUICK.format(**{**files, **other}))
    return file


def stages(store: Path) -> dict[str, int]:
    """Finished stages and when each was made."""
    return {one.name: one.stat().st_mtime_ns for one in (store / "stages").glob("[!.]*")}


def test_a_build_killed_at_any_stage_goes_on_where_it_was(tmp_path: Path) -> None:
    file, store = quick(tmp_path), tmp_path / "store"
    command = [str(PENSTOCK), "build", str(file), "--store", str(store)]
    kept: dict[str, int] = {}
    for step in ("int8: slim", "int8: quantize", "fp32: evaluate", "int8: evaluate", "measure", "int8: weigh"):
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
            assert running.stderr
            assert any(step in line for line in running.stderr)
            running.kill()
        assert all((store / "stages" / name / "facts.json").is_file() for name in stages(store))
        assert kept.items() <= stages(store).items()
        kept = stages(store)
    ended = build(file, store, "-o", "json")
    assert ended.returncode == 0, ended.stderr
    assert kept.items() <= stages(store).items()
    assert json.loads(ended.stdout)["selected"] == "int8"
    assert not list((store / "stages").glob(".making-*"))


def test_samples_that_do_not_fit_are_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", x=np.zeros((4, 3, 32, 32), np.float32))
    ended = build(quick(tmp_path, calibration=tmp_path / "odd.npz"), tmp_path / "store", "-o", "json")
    found = json.loads(ended.stdout)
    assert found["selected"] == "fp32"
    assert "array x has shape [4, 3, 32, 32], and input image of the model takes" in named(found, "int8")["reason"]


def test_data_that_is_no_number_ends_the_build_with_the_sample(tmp_path: Path) -> None:
    x = np.zeros((40, 1, 32, 32), np.float32)
    x[33, 0, 5, 5] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.zeros(40, np.int64))
    ended = build(quick(tmp_path, dataset=tmp_path / "nan.npz"), tmp_path / "store")
    assert ended.returncode == 1
    assert "sample 33 of input image holds NaN or an infinity; remove it, or put a number there" in ended.stderr


def test_a_full_disk_is_said_with_the_next_step(tmp_path: Path) -> None:
    """In a mount namespace, whose disk of 3 MiB has room for source and data and not for variants."""
    file, store = quick(tmp_path), tmp_path / "store"
    store.mkdir()
    script = f"mount -t tmpfs -o size=3m tmpfs {store} && exec {PENSTOCK} build {file} --store {store}"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "No space left on device" in ended.stderr
    assert "free some space or name another folder" in ended.stderr
