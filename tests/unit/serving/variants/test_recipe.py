from __future__ import annotations

import json
from typing import Any

import pytest

from serving.errors import InvalidInput
from serving.variants import recipe

TRAINING = {"data": {"uri": "train.npz"}}


def one_pass(asked: dict[str, Any]) -> recipe.Pass:
    document = {"source": {"uri": "m.onnx"}, "variants": [{"name": "a", "passes": [asked]}]}
    return recipe.parse(json.dumps(document)).variants[0].passes[0]


@pytest.mark.parametrize("student", [{}, {"width": 0.5, "student": {"uri": "s.onnx"}}])
def test_a_student_is_either_given_or_a_width(student: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="distill needs exactly one of student, width"):
        one_pass({"distill": student | {"training": TRAINING}})


def test_a_given_student_is_fetched_beside_the_samples() -> None:
    asked = one_pass({"distill": {"student": {"uri": "s.onnx"}, "training": TRAINING}})
    assert asked.samples == recipe.Location(uri="train.npz")
    assert asked.files == {"student": recipe.Location(uri="s.onnx")}
    assert asked.toolchain == "torch"
