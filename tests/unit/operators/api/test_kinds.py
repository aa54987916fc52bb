from __future__ import annotations

from typing import Any

import pytest

from operators.api.errors import InvalidObject
from operators.api.kinds import parse
from operators.api.model import Model


def model(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "digits"},
        "spec": {"source": {"uri": "s3://models/digits.onnx"}, **spec},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (model(runtme="triton"), "Model 'digits': spec.runtme: unknown field; did you mean runtime?"),
        (
            model(contract={"output": {"colour": "red"}}),
            "Model 'digits': spec.contract.output.colour: unknown field; there are detections, labels",
        ),
        (
            model(contract={"input": {"image": {"size": [32]}}}),
            "Model 'digits': spec.contract.input.image.size: needs at least 2 items, has 1",
        ),
        (
            model(variants=[{"name": "int8", "passes": ["quantize"]}]),
            "Model 'digits': spec.variants[0].passes[0]: must be a mapping; got 'quantize'",
        ),
        (
            model(source={"uri": "http://models/digits.onnx"}),
            "Model 'digits': spec.source: uri must be one of file://…, pvc://…, s3://…, gs://…, abfs://…, https://…, "
            "hf://…, oci://…, mlflow://…, dvc://…; `penstock apply -f FILE` takes relative paths, too",
        ),
        ({**model(), "metadata": {}}, "Model: metadata.name: required, but not given"),
        (
            model(replicas="two"),
            "Model 'digits': spec.replicas: input should be a valid integer, unable to parse string as an integer; "
            "got 'two'",
        ),
        (
            model(scaling={"minReplicas": 3, "maxReplicas": 2}),
            "Model 'digits': spec.scaling: scaling.minReplicas must not be above scaling.maxReplicas",
        ),
        (
            model(rollout={"steps": [{"weight": 50}, {"weight": 20.5}]}),
            "Model 'digits': spec.rollout: the weights of steps must rise from one to the next: 50, 20.5",
        ),
        (
            {**model(), "apiVersion": "penstock.dev/v1"},
            "Model 'digits': apiVersion is 'penstock.dev/v1', expected 'penstock.dev/v1alpha1'",
        ),
        (
            {**model(), "kind": "Pod"},
            "'digits': kind is 'Pod', expected one of Model, Endpoint, ServingRuntime",
        ),
        ({**model(), "spec": {}}, "Model 'digits': spec.source: required, but not given"),
        ("text", "an object must be a mapping with apiVersion, kind, metadata and spec, got 'text'"),
    ],
    ids=[
        "typo",
        "unknown field",
        "too short",
        "no mapping inside",
        "scheme",
        "no name",
        "wrong type",
        "broken rule",
        "broken rule that names what stands there",
        "version",
        "kind",
        "missing",
        "no mapping",
    ],
)
def test_an_object_that_cannot_be_accepted_is_told_why(given: Any, message: str) -> None:
    with pytest.raises(InvalidObject) as refusal:
        parse(given)
    assert str(refusal.value) == message


def test_what_is_written_out_reads_back_the_same() -> None:
    parsed = parse(model(rollout={"steps": [{"weight": 5, "for": "2m"}]}, resources={"requests": {"cpu": "1"}}))
    assert parse(parsed.to_dict()) == parsed


def test_a_parsed_object_cannot_be_changed() -> None:
    parsed = parse(model())
    assert isinstance(parsed, Model)
    with pytest.raises(ValueError, match="frozen"):
        parsed.spec.replicas = 2  # type: ignore[misc]


def test_fields_of_status_that_a_newer_version_wrote_are_passed_over() -> None:
    parsed = parse({**model(), "status": {"observedGeneration": 3, "novelty": {"a": 1}}})
    assert isinstance(parsed, Model)
    assert parsed.status.observed_generation == 3
