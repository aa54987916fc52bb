"""What a runtime makes of the variants that a Model names."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from serving.errors import InvalidInput
from serving.variants import lowering, recipe
from serving.variants.recipe import Asked

BOTH = ("openvino", "litert")
INT8 = {"name": "int8", "passes": [{"quantize": {"calibration": {"uri": "calibration.npz"}}}]}
SAID = {"name": "said", "passes": [{"lower": {"target": "openvino", "precision": "bf16"}}]}
EDGE = {"name": "edge", "source": {"uri": "small.tflite"}}


def asked(engine: str, *variants: Mapping[str, object]) -> Asked:
    document = {"source": {"uri": "model.onnx"}, "variants": variants or [{"name": "fp32"}, INT8], "engine": engine}
    return recipe.parse(json.dumps(document))


def told(asked: Asked, installed: tuple[str, ...] = BOTH) -> list[tuple[str, str, str]]:
    """Name, whose form it is, and its passes in short."""
    return [
        (
            variant.name,
            of,
            " ".join(f"{one.lower.target}-{one.lower.precision}" if one.lower else one.kind for one in variant.passes),
        )
        for variant, of in lowering.variants(asked, installed)
    ]


def test_without_an_engine_the_variants_stay_as_they_are() -> None:
    assert told(asked("")) == [("fp32", "", ""), ("int8", "", "quantize")]


def test_everything_is_lowered_to_the_engine_that_is_asked_for() -> None:
    assert told(asked("openvino")) == [("fp32", "", "openvino-fp32"), ("int8", "", "quantize openvino-fp32")]


def test_litert_makes_integers_of_its_own_from_the_same_samples() -> None:
    found = lowering.variants(asked("litert"), BOTH)
    assert told(asked("litert")) == [("fp32", "", "litert-fp32"), ("int8", "", "litert-int8")]
    lower = found[1][0].passes[-1].lower
    assert lower is not None
    assert lower.calibration is not None
    assert lower.calibration.uri == "calibration.npz"


def test_to_find_the_best_engine_each_variant_is_made_for_all_that_are_installed() -> None:
    assert told(asked("auto", {"name": "fp32"}), ("openvino",)) == [
        ("fp32", "", ""),
        ("fp32-openvino", "fp32", "openvino-fp32"),
    ]
    assert [name for name, _, _ in told(asked("auto"))] == [
        *("fp32", "fp32-openvino", "fp32-litert"),
        *("int8", "int8-openvino", "int8-litert"),
    ]


@pytest.mark.parametrize("engine", ["openvino", "litert", "auto"])
def test_what_says_its_engine_itself_stays_as_it_is(engine: str) -> None:
    assert told(asked(engine, SAID, EDGE)) == [("said", "", "openvino-bf16"), ("edge", "", "")]


def test_a_search_tries_engines_itself_and_is_not_asked_for_one() -> None:
    search = {"name": "auto", "search": {}}
    assert told(asked("auto", search)) == [("auto", "", "")]
    with pytest.raises(InvalidInput, match="use the runtime auto, or name passes"):
        told(asked("openvino", search))
