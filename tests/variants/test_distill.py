"""Students of the digits' network, trained for a few epochs in a stage's own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.engines import artifact
from serving.errors import ArtifactRefused
from serving.variants import recipe, stages
from serving.variants.stages import Made, Stage

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
pytestmark = pytest.mark.timeout(600)


def distilled(
    folder: Path,
    asked: dict[str, Any],
    *,
    model: Path = DIGITS / "model.onnx",
    samples: Path = DIGITS / "train.npz",
    **files: Path,
) -> Made:
    training = {"data": {"uri": str(samples)}, "epochs": 4, "rate": 0.01}
    (one,) = (
        recipe.parse(
            json.dumps(
                {
                    "source": {"uri": "a"},
                    "variants": [{"name": "student", "passes": [{"distill": asked | {"training": training}}]}],
                }
            )
        )
        .variants[0]
        .passes
    )
    inputs = {"model": model, "samples": samples, **files}
    with stages.opened(folder, stages.Limits(), lambda: None) as made:
        return made.made(Stage(one.kind, one.step, inputs, (str(asked), str(samples)), one.toolchain))


def read_right(model: Path) -> float:
    with np.load(DIGITS / "eval.npz") as held_out:
        (scores,) = artifact.load(model).infer({"image": held_out["x"]}, ["scores"])
        return float((scores.argmax(axis=1) == held_out["y"]).mean())


def small(path: Path, classes: int = 10) -> Path:
    """A network of one convolution, with names of its own."""
    random = np.random.default_rng(1)
    weights = {
        "kernel": random.normal(0, 0.2, (16, 1, 5, 5)),
        "bias": np.zeros(16),
        "matrix": random.normal(0, 0.02, (16 * 64, classes)),
        "offset": np.zeros(classes),
    }
    nodes = [
        helper.make_node("Conv", ["picture", "kernel", "bias"], ["c"], strides=[4, 4], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix", "offset"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 1, 32, 32])],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_student_of_a_quarter_of_the_width_is_trained_beside_one_that_hears_labels_alone(tmp_path: Path) -> None:
    made = distilled(tmp_path, {"width": 0.25})
    before, after = made.facts["weights"]
    assert after < before / 10
    wrong = made.facts["share wrong"]
    assert set(wrong) == {"answers", "labels"}
    assert wrong[made.facts["learned from"]] == min(wrong.values())
    assert made.facts["held out"] == 81
    assert made.facts["signature"] == {
        "inputs": [["image", "FP32", [-1, 1, 32, 32]]],
        "outputs": [["scores", "FP32", [-1, 10]]],
    }
    assert read_right(made.folder / "model.onnx") > 0.8


def test_a_student_given_as_onnx_answers_under_the_names_of_the_source(tmp_path: Path) -> None:
    made = distilled(tmp_path / "made", {"student": {"uri": "s"}}, student=small(tmp_path / "small.onnx"))
    assert made.facts["weights"][1] == 16 * 25 + 16 + 16 * 64 * 10 + 10
    assert made.facts["signature"]["inputs"] == [["image", "FP32", [-1, 1, 32, 32]]]
    assert made.facts["signature"]["outputs"] == [["scores", "FP32", [-1, 10]]]
    assert read_right(made.folder / "model.onnx") > 0.8


def test_without_labels_there_is_nothing_to_learn_beside(tmp_path: Path) -> None:
    made = distilled(tmp_path, {"width": 0.25}, samples=DIGITS / "calibration.npz")
    assert set(made.facts["share wrong"]) == {"answers"}
    assert made.facts["held out"] == 20


def test_a_student_with_other_answers_is_refused_with_both_shapes(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        distilled(tmp_path / "made", {"student": {"uri": "s"}}, student=small(tmp_path / "small.onnx", classes=7))
    assert str(refused.value) == (
        "distill: the student answers [1, 7] to one sample and the source [1, 10]; "
        "give the student the source's outputs"
    )


def test_a_student_of_numbers_is_tried_by_how_far_it_is_from_them(tmp_path: Path) -> None:
    source = small(tmp_path / "numbers.onnx", classes=3)
    with np.load(DIGITS / "train.npz") as digits:
        (answers,) = artifact.load(source).infer({"picture": digits["x"]}, ["answer"])
        np.savez(tmp_path / "numbers.npz", x=digits["x"], y=answers)
    made = distilled(tmp_path / "made", {"width": 0.5}, model=source, samples=tmp_path / "numbers.npz")
    deviation = made.facts["deviation"]
    assert set(deviation) == {"answers", "labels"}
    assert max(deviation.values()) < float(answers.std())
    assert made.facts["weights"][1] == 8 * 25 + 8 + 8 * 64 * 3 + 3
