"""The API server and local mode judge the same objects the same way."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from operators.api.errors import InvalidObject
from operators.api.kinds import parse
from tests.apiserver.conftest import Cluster, model


def endpoint(*weights: int) -> dict[str, Any]:
    arms = [{"name": f"arm{i}", "model": "digits", "weight": weight} for i, weight in enumerate(weights)]
    metadata = {"name": "reader"}
    return {"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": metadata, "spec": {"arms": arms}}


def sticky(**by: str) -> dict[str, Any]:
    made = endpoint(100)
    made["spec"]["assignment"] = by
    return made


def runtime(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "mine"}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata,
        "spec": {"formats": ["onnx"], **spec},
    }


def shadowed(*models: str) -> dict[str, Any]:
    made = endpoint(90, 10)
    made["spec"]["shadow"] = [{"model": name, "percent": 10} for name in models]
    return made


def image(**said: Any) -> dict[str, Any]:
    output = {"labels": ["person"], "detections": {"joints": 17, "leastScore": 0.5}}
    return model(contract={"input": {"image": {"size": [640, 640], **said}}, "output": output})


REFUSED = [
    (model(source={"uri": "models/digits.onnx"}), "spec.source"),
    (model(source={"uri": "s3://models/x", "digest": "sha256:abc"}), "spec.source.digest"),
    (model(uri="s3://models/x"), "spec.uri"),
    (model(replicas=-1), "spec.replicas"),
    (model(replicas="two"), "spec.replicas"),
    (model(scaling={"minReplicas": 5, "maxReplicas": 2}), "spec.scaling"),
    (model(replicas=9, scaling={"minReplicas": 1, "maxReplicas": 2}), "spec"),
    (model(variants=[]), "spec.variants"),
    (model(variants=[{"name": "int8", "passes": [{}]}]), "spec.variants[0].passes[0]"),
    (model(rollout={"steps": [{"weight": 0}]}), "spec.rollout.steps[0].weight"),
    (model(rollout={"steps": [{"weight": 5, "for": "2 minutes"}]}), "spec.rollout.steps[0].for"),
    (model(rollout={"steps": [{"weight": 50}, {"weight": 20}]}), "spec.rollout"),
    (model(rollout={"steps": [{"weight": 5}, {"weight": 20.5}, {"weight": 20.5}]}), "spec.rollout"),
    (model(rollout={"analysis": {"alpha": 0.7}}), "spec.rollout.analysis.alpha"),
    (model(rollout={"maxSurge": "ten"}), "spec.rollout.maxSurge"),
    (model(rollout={"windows": [{"from": "25:00"}]}), "spec.rollout.windows[0].from"),
    (image(mean=[0.5, 0.5]), "spec.contract.input.image"),
    (image(mode="grey", std=[1, 1, 1]), "spec.contract.input.image"),
    (image(std=[0]), "spec.contract.input.image.std[0]"),
    (image(pad=256), "spec.contract.input.image.pad"),
    (model(name="Digits"), "metadata.name"),
    (model(name="d" * 41), "metadata.name"),
    (endpoint(60, 30), "spec"),
    (shadowed("a", "a"), "spec"),
    (sticky(), "spec.assignment"),
    (runtime(), "spec"),
]
ACCEPTED = [
    model(),
    model(replicas=0, scaling={"minReplicas": 0, "maxReplicas": 2}),
    model(variants=[{"name": "int8", "passes": [{"quantize": {"mode": "dynamic"}}]}]),
    model(rollout={"steps": [{"weight": 5, "for": "1h30m"}], "analysis": {"alpha": 0.01}}),
    model(rollout={"steps": [{"weight": 0.05}], "maxSurge": 1, "maxUnavailable": "25%", "paused": True}),
    model(rollout={"windows": [{"days": ["Mon"], "from": "10:00", "to": "16:00", "timezone": "Europe/Berlin"}]}),
    model(resources={"requests": {"cpu": "500m", "memory": "1Gi"}, "accelerator": {"class": "nvidia-l4"}}),
    image(mode="bgr", fit="letterbox", mean=[0.5, 0.25, 0.125], std=[0.5], layout="NHWC"),
    image(mode="grey", mean=[0.5], std=[0.5]),
    image(),
    endpoint(90, 10),
    shadowed("a", "b"),
    sticky(header="X-User"),
    sticky(header="X-User", cookie="sid"),
    runtime(image="engine:1"),
]


@pytest.mark.parametrize(("obj", "field"), REFUSED, ids=[f"{i}-{field}" for i, (_, field) in enumerate(REFUSED)])
def test_what_one_refuses_the_other_refuses_naming_the_field(cluster: Cluster, obj: dict[str, Any], field: str) -> None:
    with pytest.raises(subprocess.SubprocessError) as server:
        cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(obj))
    assert field in str(server.value)
    with pytest.raises(InvalidObject) as local:
        parse(obj)
    assert field in str(local.value)


@pytest.mark.parametrize("obj", ACCEPTED, ids=[f"{i}-{obj['kind']}" for i, obj in enumerate(ACCEPTED)])
def test_what_one_accepts_the_other_accepts(cluster: Cluster, obj: dict[str, Any]) -> None:
    created = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(obj))
    # Defaults are the same on both sides, too.
    stored, parsed = parse(json.loads(created)), parse(obj)
    assert stored.model_dump()["spec"] == parsed.model_dump()["spec"]


def test_the_rule_that_was_broken_is_told_in_its_own_words(cluster: Cluster) -> None:
    with pytest.raises(subprocess.SubprocessError) as refusal:
        cluster.apply(endpoint(60, 30))
    assert "the weights of arms must add up to 100" in str(refusal.value)


def test_explain_reads_like_documentation(cluster: Cluster) -> None:
    text = " ".join(cluster.kubectl("explain", "model.spec.rollout.analysis").split())
    assert "Greatest probability that the evidence rolls back a revision that is no worse than the stable one." in text


def test_every_field_of_every_kind_is_described(cluster: Cluster) -> None:
    for kind in ("models", "endpoints", "servingruntimes"):
        crd = cluster.get("crd", f"{kind}.penstock.dev")
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert undescribed(schema, "spec") == []


def undescribed(schema: dict[str, Any], path: str) -> list[str]:
    found = []
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if not field.get("description"):
            found.append(here)
        found += undescribed(field, here) + undescribed(field.get("items", {}), here)
    return found
