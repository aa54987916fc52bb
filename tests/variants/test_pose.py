"""The pose example as a person builds it: int8 done carelessly is caught, and done with care it may serve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

POSE = Path(__file__).parents[2] / "examples" / "pose"
PENSTOCK = Path(sys.executable).with_name("penstock")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pose")
    manifest = yaml.safe_load((POSE / "model.yaml").read_text())
    mixed = {"quantize": {"calibration": {"uri": "calibration.npz"}, "exclude": "sensitive"}}
    manifest["spec"]["variants"].append({"name": "int8-mixed", "passes": [mixed]})
    for name in ("model.onnx", "calibration.npz", "eval.npz"):
        (folder / name).symlink_to(POSE / name)
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    command = [str(PENSTOCK), "build", str(folder / "model.yaml"), "--store", str(folder / "store"), "-o", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {one["name"]: one for one in json.loads(ended.stdout)["variants"]}


def test_one_scale_for_pixels_and_probabilities_is_refused_for_what_it_loses(
    variants: dict[str, dict[str, Any]],
) -> None:
    naive = variants["int8-naive"]
    assert not naive["accepted"]
    assert naive["reason"].startswith("it loses ")
    assert naive["quality"]["value"] < 0.7 * variants["fp32"]["quality"]["value"]


def test_with_its_tail_left_as_it_is_int8_is_within_a_point_of_average_precision(
    variants: dict[str, dict[str, Any]],
) -> None:
    quality = variants["int8"]["quality"]
    assert quality["drop"] <= 0.01
    assert quality["dropUpperBound"] <= 0.01
    assert not variants["int8-naive"]["made"][0]["excluded"]
    assert len(variants["int8"]["made"][0]["excluded"]) > 10


def test_the_layers_to_leave_in_floats_are_found_by_what_each_does_to_the_answers(
    variants: dict[str, dict[str, Any]],
) -> None:
    mixed = variants["int8-mixed"]
    (step,) = mixed["made"]
    assert mixed["quality"]["dropUpperBound"] <= 0.01
    # The last Concat, with pixels beside probabilities, before all others.
    assert step["sensitivity"][0]["operator"] == "Concat"
    assert step["sensitivity"][0]["kept"]
    assert step["sensitivity"][0]["sqnrDb"] < 10
    assert step["sqnrDb"] >= 33
    assert len(step["excluded"]) < len(step["sensitivity"]) / 4
