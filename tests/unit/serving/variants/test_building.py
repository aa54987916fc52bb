"""Whole builds of small models, in real processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from pyarrow import parquet

from operators.api.status import BuildReport
from serving.errors import ArtifactRefused, InvalidInput
from serving.variants import building, forms, recipe
from serving.variants.stages import Limits
from tests.rig import onnx_models

LIMITS = Limits(memory_bytes=2**29, time_s=60.0)


def built(folder: Path, **asked: Any) -> dict[str, Any]:
    document = json.dumps({"variants": [{"name": "fp32"}], **asked})
    return building.Build(recipe.parse(document), folder / "store", LIMITS, lambda one: None).run()


def reasons(report: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in report["variants"]}


def hungry(path: Path) -> Path:
    """64 MiB of memory a row, however small the row."""
    return onnx_models.save(
        path,
        helper.make_graph(
            [
                helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
                helper.make_node("Mul", ["rows", "each"], ["size"]),
                helper.make_node("ConstantOfShape", ["size"], ["many"]),
                helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
                helper.make_node("Add", ["x", "sum"], ["y"]),
            ],
            "hungry",
            [onnx_models.value("x", TensorProto.FLOAT, ["n", 4])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n", 4])],
            [helper.make_tensor("each", TensorProto.INT64, [1], [2**24])],
        ),
    )


def test_a_variant_that_cannot_be_measured_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    source, odd = onnx_models.linear(tmp_path / "model.onnx"), hungry(tmp_path / "odd" / "model.onnx")
    variants = [{"name": "fp32"}, {"name": "odd", "source": {"uri": str(odd)}}]
    report = built(tmp_path, source={"uri": str(source)}, variants=variants)
    assert report["selected"] == "fp32"
    assert "a step may have 512 MiB of memory" in reasons(report)["odd"]
    assert "cpuMs" in report["variants"][0]


def test_a_refusal_names_the_file_that_was_given_and_not_its_copy(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((7, 5), np.float32), y=np.zeros(7, np.int64))
    with pytest.raises(ArtifactRefused) as refused:
        built(tmp_path, source={"uri": str(source)}, evaluation={"dataset": {"uri": f"file://{tmp_path}/data.npz"}})
    assert str(refused.value).startswith(f"{tmp_path}/data.npz: array x has shape [7, 5]")


def test_a_drop_of_more_than_the_metric_has_is_taken_for_a_percentage(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"maxDrop 2 is more than accuracy has, .*; write 0\.02 for 2 points"):
        built(tmp_path, source={"uri": "model.onnx"}, evaluation={"dataset": {"uri": "data.npz"}, "maxDrop": 2})


def test_samples_on_which_the_source_is_no_better_than_a_guess_are_told(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    scores = onnxruntime.InferenceSession(source).run(None, {"x": x})[0]
    warnings = []
    for number, labels in enumerate((scores.argmax(axis=1), scores.argmin(axis=1))):
        np.savez(tmp_path / f"{number}.npz", x=x, y=labels)
        data = {"dataset": {"uri": str(tmp_path / f"{number}.npz")}}
        warnings.append(built(tmp_path, source={"uri": str(source)}, evaluation=data)["warnings"])
    assert warnings[0] == []
    assert len(warnings[1]) == 1
    assert warnings[1][0].startswith(
        "the source is right on 0.0% of the samples, and always naming the commonest class"
    )


def test_labels_that_are_not_as_many_as_the_columns_are_told(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    contract = {"output": {"labels": ["one"]}}
    (warning,) = built(tmp_path, source={"uri": str(source)}, contract=contract)["warnings"]
    assert warning.startswith("contract.output.labels names 1 classes, and the model's answer has ")


def test_a_search_without_samples_to_learn_from_says_what_it_left_untried(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.ones((7, 4), np.float32), y=np.zeros(7, np.int64))
    report = built(
        tmp_path,
        source={"uri": str(source)},
        evaluation={"dataset": {"uri": str(tmp_path / "data.npz")}},
        variants=[{"name": "fp32"}, {"name": "auto", "search": {"budget": "0s"}}],
    )
    assert [one for one in report["warnings"] if one.startswith("auto had no samples to learn from")]


def test_a_source_whose_answers_are_no_numbers_is_refused(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx", scale=float("nan"))
    np.savez(tmp_path / "data.npz", x=np.ones((7, 4), np.float32), y=np.zeros(7, np.int64))
    with pytest.raises(ArtifactRefused) as refused:
        built(tmp_path, source={"uri": str(source)}, evaluation={"dataset": {"uri": str(tmp_path / "data.npz")}})
    assert str(refused.value) == (
        "the source cannot be used: none of its answers to 7 samples is a number; look for NaN in its weights"
    )
    assert not (tmp_path / "store" / "builds").exists()


def evaluated(folder: Path, metric: str, labels: list[int], x: list[list[float]]) -> dict[str, Any]:
    """Of a model with the answers ``x @ WEIGHTS``, and of one with half of them."""
    source, half = onnx_models.linear(folder / "model.onnx"), onnx_models.linear(folder / "half" / "model.onnx", 0.5)
    np.savez(folder / "eval.npz", x=np.array(x, np.float32), y=np.array(labels))
    return built(
        folder,
        source={"uri": str(source)},
        variants=[{"name": "fp32"}, {"name": "half", "source": {"uri": str(half)}}],
        evaluation={"dataset": {"uri": str(folder / "eval.npz")}, "metric": metric},
        contract={"output": {"labels": ["cat", "dog"]}},
    )


def test_a_metric_without_a_value_is_null_in_the_report_and_empty_for_people(tmp_path: Path) -> None:
    """There is no chance that one of class 1 scores higher than one of class 0 where nobody is of class 0."""
    report = evaluated(tmp_path, "auroc", [1, 1], [[1, 0, 0, 0], [0, 1, 0, 0]])
    assert report["variants"][1]["quality"] | {"slices": []} == {
        "value": None,
        "drop": None,
        "dropUpperBound": None,
        "samples": 2,
        "disagreement": 0.0,
        "churn": 0.0,
        "worstSlice": None,
        "slices": [],
    }
    written = (tmp_path / "store" / "builds" / report["build"] / "report.json").read_text()
    assert json.loads(written, parse_constant=lambda name: pytest.fail(name)) == report
    assert "nothing can be said of its drop" in reasons(report)["half"]
    assert "nan" not in Path(report["page"]).read_text().lower()
    told = BuildReport.model_validate({key: report[key] for key in ("variants", "selected")}).variants[1]
    assert told.status("Refused", told.reason).to_dict()["quality"] == {"worstSlice": ""}


def test_what_is_taken_for_what_is_counted_for_every_variant(tmp_path: Path) -> None:
    """Each of the four unit vectors gets the weights of its row, which are the highest in the last column."""
    report = evaluated(tmp_path, "accuracy", [0, 2, 2, 1], np.eye(4).tolist())
    counts = [[0, 0, 1], [0, 0, 1], [0, 0, 2]]
    assert report["confusion"] == {"labels": ["cat", "dog", "2"], "variants": {"fp32": counts, "half": counts}}
    assert "What is taken for what" in Path(report["page"]).read_text()


def test_answers_that_are_no_classes_are_not_counted_as_such(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    np.savez(tmp_path / "eval.npz", x=np.eye(4, dtype=np.float32), y=np.eye(4, 3))
    evaluation = {"dataset": {"uri": str(tmp_path / "eval.npz")}, "metric": "mae"}
    assert built(tmp_path, source={"uri": str(source)}, evaluation=evaluation)["confusion"] is None


def test_samples_may_be_a_folder_of_files(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    (tmp_path / "eval").mkdir()
    for number, row in enumerate(np.eye(4, dtype=np.float32)):
        table = pa.table({"x": [row.tolist()], "y": [2]})
        parquet.write_table(table, tmp_path / "eval" / f"part-{number}.parquet")
    evaluation = {"dataset": {"uri": str(tmp_path / "eval")}}
    report = built(tmp_path, source={"uri": str(source)}, evaluation=evaluation)
    assert report["variants"][0]["quality"]["value"] == 1.0
    assert report["variants"][0]["quality"]["samples"] == 4


def samples(folder: Path) -> dict[str, Any]:
    x = np.random.default_rng(0).standard_normal((400, 4)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x @ onnx_models.WEIGHTS).argmax(1))
    return {"dataset": {"uri": str(folder / "data.npz")}, "maxDrop": 0.05}


def test_the_report_says_how_the_selected_variant_serves_best_and_what_nothing_beats(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    report = built(tmp_path, source={"uri": str(source)}, evaluation=samples(tmp_path))
    assert report["selected"] == "fp32"
    assert report["frontier"] == ["fp32"]
    assert report["choice"]["engine"] == "onnxruntime"
    assert report["choice"]["threads"] in (1, len(os.sched_getaffinity(0)))
    assert str(report["choice"]["batch"]) in report["variants"][0]["cpuMs"]
    assert report["latency"] is None


@pytest.mark.parametrize(("target", "met"), [("10m", True), ("0.0001ms", False)])
def test_a_latency_target_is_held_against_a_call_and_told_when_nothing_meets_it(
    tmp_path: Path, target: str, met: bool
) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    objective = {"latency": {"target": target}}
    report = built(tmp_path, source={"uri": str(source)}, evaluation=samples(tmp_path), objective=objective)
    assert report["latency"]["met"] is met
    said = report["latency"]["reason"].startswith("nothing that may serve meets it; the quickest is selected: a call")
    assert said is not met


def test_an_engine_that_does_not_take_a_form_is_quoted_without_the_folder_that_nobody_sees(tmp_path: Path) -> None:
    source = onnx_models.linear(tmp_path / "model.onnx")
    variants = [{"name": "fp32"}, {"name": "gpu", "passes": [{"lower": {"target": "tensorrt"}}]}]
    report = built(tmp_path, source={"uri": str(source)}, variants=variants)
    assert reasons(report)["gpu"] == (
        "lower: model.tensorrt.onnx is for TensorRT, and this ONNX Runtime has no TensorrtExecutionProvider; install "
        "onnxruntime-gpu instead of onnxruntime on a machine with an NVIDIA GPU, or leave it to another engine"
    )


X, Y = ["x", "FP32", [-1, 4]], ["y", "FP32", [-1, 3]]


@pytest.mark.parametrize(
    ("outputs", "agrees"),
    [
        ([Y], True),
        ([["y", "FP32", [-1, -1]]], True),
        ([["y", "FP32", [-1, 4]]], False),
        ([["y", "FP32", [-1, 3, 1]]], False),
        ([["z", "FP32", [-1, 3]]], False),
        ([["y", "FP64", [-1, 3]]], False),
        ([Y, Y], False),
    ],
)
def test_a_form_gives_what_its_source_does_where_both_say_a_size(outputs: list[Any], agrees: bool) -> None:
    assert forms.agree({"inputs": [X], "outputs": [Y]}, {"inputs": [X], "outputs": outputs}) is agrees
