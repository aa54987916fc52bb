"""Forms for other engines than ONNX Runtime, through whole builds of the digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from serving.engines import artifact
from tests.variants.test_build import DIGITS, build, named

pytestmark = pytest.mark.timeout(600)

MODEL = f"""
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: engines}}
spec:
  source: {{uri: {DIGITS}/model.onnx}}
  variants:
    - name: fp32
    - name: openvino
      passes: [{{lower: {{target: openvino}}}}]
    - name: openvino-int8
      passes: [{{quantize: {{calibration: {{uri: {DIGITS}/calibration.npz}}}}}}, {{lower: {{target: openvino}}}}]
    - name: litert
      passes: [{{lower: {{target: litert}}}}]
    - name: litert-int8
      passes: [{{lower: {{target: litert, precision: int8, calibration: {{uri: {DIGITS}/calibration.npz}}}}}}]
    - name: litert-of-integers # their converter reads no QuantizeLinear
      passes: [{{quantize: {{calibration: {{uri: {DIGITS}/calibration.npz}}}}}}, {{lower: {{target: litert}}}}]
    - name: tensorrt # needs a GPU
      passes: [{{lower: {{target: tensorrt}}}}]
  evaluation: {{dataset: {{uri: {DIGITS}/eval.npz}}}}
"""
SOURCE = """
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: given}}
spec:
  source: {{uri: {source}}}
  variants: [{{name: given}}, {{name: slim, passes: [{{slim: {{}}}}]}}]
  evaluation: {{dataset: {{uri: {dataset}}}}}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("engines")
    (folder / "model.yaml").write_text(MODEL)
    ended = build(folder / "model.yaml", folder / "store", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def lowered(report: dict[str, Any], name: str) -> Path:
    return Path(named(report, name)["uri"].removeprefix("file://"))


@pytest.mark.parametrize("name", ["openvino", "openvino-int8", "litert", "litert-int8"])
def test_the_digits_keep_their_quality_on_every_engine(report: dict[str, Any], name: str) -> None:
    found = named(report, name)
    assert found["quality"]["dropUpperBound"] <= 0.01
    assert set(found["cpuMs"]) == {"1", "2", "4", "8", "16", "32"}
    assert artifact.load(lowered(report, name)).platform == name.partition("-")[0]


def test_what_was_lowered_takes_the_same_floats_though_the_file_takes_integers(report: dict[str, Any]) -> None:
    """The trap: 9.7 % of the digits are right when their pixels are fed as if they were the file's integers."""
    path = lowered(report, "litert-int8")
    (told,) = Interpreter(str(path)).get_input_details()
    assert told["dtype"] == np.int8
    engine, source = artifact.load(path), artifact.load(DIGITS / "model.onnx")
    assert engine.signature == source.signature
    with np.load(DIGITS / "eval.npz") as samples:
        x, y = samples["x"][:200], samples["y"][:200]
    (scores,) = engine.infer({engine.signature.inputs[0].name: x}, [engine.signature.outputs[0].name])
    assert (scores.argmax(1) == y).mean() > 0.95


def test_what_an_engine_cannot_take_is_refused_with_the_reason(report: dict[str, Any]) -> None:
    assert "install onnxruntime-gpu instead of onnxruntime" in named(report, "tensorrt")["reason"]
    assert "leave lower out" in named(report, "litert-of-integers")["reason"]


def test_a_tflite_file_is_a_source_that_is_evaluated_and_measured(report: dict[str, Any], tmp_path: Path) -> None:
    source = SOURCE.format(source=lowered(report, "litert-int8"), dataset=DIGITS / "eval.npz")
    (tmp_path / "model.yaml").write_text(source)
    ended = build(tmp_path / "model.yaml", tmp_path / "store", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert named(found, "given")["quality"]["value"] > 0.95
    assert named(found, "given")["cpuMs"]["1"] > 0
    assert named(found, "slim")["reason"] == "slim: it changes ONNX, and model.tflite is none; leave slim out"


SEARCH = f"""
apiVersion: penstock.dev/v1alpha1
kind: Model
metadata: {{name: searched}}
spec:
  source: {{uri: {DIGITS}/model.onnx}}
  variants: [{{name: fp32}}, {{name: auto, search: {{calibration: {{uri: {DIGITS}/calibration.npz}}}}}}]
  evaluation: {{dataset: {{uri: {DIGITS}/eval.npz}}}}
"""


def test_a_search_tries_other_engines_and_measures_only_what_a_choice_needs(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(SEARCH)
    ended = build(tmp_path / "model.yaml", tmp_path / "store", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    engines = {one["name"]: one["engine"] for one in found["variants"]}
    assert engines["fp32"] == "onnxruntime"
    assert {"onnxruntime", "openvino", "litert"} == set(engines.values())
    assert found["cellsMeasured"] < len(engines) * 6
    best = named(found, found["selected"])
    assert best["searchedBy"] == "auto"
    assert best["gain"] >= 2
    assert (found["choice"]["engine"], str(found["choice"]["batch"]) in best["cpuMs"]) == (best["engine"], True)
    assert found["selected"] in found["frontier"]
