"""The builder understands whatever the API lets a Model say of its variants."""

from __future__ import annotations

import json

import pytest

from operators.api.model import Model
from operators.planning import builds
from serving.variants import recipe

DATA = {"uri": "s3://models/samples.npz", "digest": "sha256:" + "a" * 64}
TRAINING = {"data": DATA, "epochs": 3, "rate": 0.01}
PASSES: tuple[dict[str, dict[str, object]], ...] = (
    {"slim": {}},
    {"cast": {"to": "fp16"}},
    {
        "quantize": {
            "mode": "static",
            "calibration": DATA,
            "method": "entropy",
            "perChannel": False,
            "exclude": "sensitive",
            "minSqnrDb": 30.0,
        }
    },
    {"prune": {"ratio": 0.5, "structure": "channels", "training": TRAINING}},
    {"distill": {"width": 0.5, "training": TRAINING}},
    {"distill": {"student": DATA, "training": TRAINING}},
    {"lower": {"target": "openvino", "precision": "bf16"}},
    {"lower": {"target": "litert", "precision": "int8", "calibration": DATA}},
)


def asked(*variants: object) -> recipe.Asked:
    spec = {
        "source": DATA,
        "variants": variants,
        "evaluation": {
            "dataset": DATA,
            "metric": "top-3",
            "maxDrop": 0.02,
            "confidence": 0.9,
            "worstSlice": {"by": "label", "maxDrop": 0.1},
        },
        "objective": {"minimize": "latency", "latency": {"percentile": 99, "target": "50ms"}},
        "contract": {"input": {"image": {"size": [32, 32], "mode": "grey"}}, "output": {"labels": ["a", "b"]}},
        "batching": {"maxSize": 8},
    }
    model = Model.model_validate({"metadata": {"name": "m"}, "spec": spec})
    return recipe.parse(json.dumps(builds.document(model)))


@pytest.mark.parametrize("step", PASSES, ids=lambda step: next(iter(step)))
def test_a_pass_means_the_same_to_both(step: dict[str, dict[str, object]]) -> None:
    (variant,) = asked({"name": "one", "passes": [step]}).variants
    (found,) = variant.passes
    told = {key: value for key, value in recipe.plain(found)[found.kind].items() if value is not None}
    assert told == next(iter(step.values()))


def test_a_search_means_the_same_to_both() -> None:
    search = {"budget": "5m", "calibration": DATA, "training": TRAINING}
    (variant,) = asked({"name": "auto", "search": search}).variants
    assert recipe.plain(variant.search) == search


def test_the_evaluation_means_the_same_to_both() -> None:
    found = asked({"name": "fp32"})
    assert found.evaluation is not None
    assert (found.evaluation.metric, found.evaluation.confidence, found.max_batch) == ("top-3", 0.9, 8)
