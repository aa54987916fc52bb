from __future__ import annotations

import json
from typing import Any

import pytest

from operators.actuators.kubernetes import build_jobs, makers
from operators.api.builder import Builder
from operators.api.plan import Build, Key
from operators.api.routes import MODEL_LABEL

KEY = Key("Model", "team", "digits")
OWNER = makers.owner(KEY, "uid")
DOCUMENT = {"name": "digits", "source": {"uri": "s3://models/digits.onnx", "digest": "sha256:" + "a" * 64}}


def job(builder: Builder | None = None, **document: Any) -> dict[str, Any]:
    build = Build("a1b2c3d4", json.dumps({**DOCUMENT, **document}))
    return build_jobs.job(KEY, build, OWNER, builder or Builder(), "penstock-builder:1", "s3://models/store")


def pod(made: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


def arguments(made: dict[str, Any]) -> dict[str, str]:
    """Options of the builder, as Kubernetes gives them to it."""
    (container,) = pod(made)["containers"]
    assert container["args"][:3] == ["-m", "serving", "build"]
    given = [argument.replace("$$", "$") for argument in container["args"][3:]]
    return dict(zip(given[::2], given[1::2], strict=True))


def test_a_job_is_told_what_to_build_and_where_the_result_goes() -> None:
    made = job()
    said = arguments(made)
    assert json.loads(said["--spec"]) == DOCUMENT
    assert (said["--publish"], said["--progress-port"]) == ("s3://models/store", "8084")
    assert made["metadata"]["name"] == "digits-build-a1b2c3d4"
    assert made["metadata"]["ownerReferences"] == [OWNER]


def test_nothing_in_a_document_is_taken_for_a_variable_of_the_container() -> None:
    name = "$(AWS_SECRET_ACCESS_KEY) $$"
    assert json.loads(arguments(job(name=name))["--spec"]) == DOCUMENT | {"name": name}


def test_a_builder_has_no_token_and_no_more_rights_than_restricted_allows() -> None:
    spec = pod(job())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == makers.POD_SECURITY
    assert container["securityContext"] == makers.RESTRICTED


def test_a_killed_builder_finds_its_stages_again() -> None:
    spec = pod(job())
    assert spec["restartPolicy"] == "OnFailure"
    assert {"name": "work", "emptyDir": {}} in spec["volumes"]
    assert {"name": "work", "mountPath": arguments(job())["--store"]} in spec["containers"][0]["volumeMounts"]


def test_builders_are_not_counted_as_what_serves() -> None:
    made = job()
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert MODEL_LABEL not in labels
    assert labels[build_jobs.BUILT_FOR_LABEL] == "digits"
    assert made["metadata"]["labels"][MODEL_LABEL] == "digits"


def test_every_claim_is_mounted_once_and_read_only() -> None:
    dataset = {"dataset": {"uri": "pvc://data/eval.npz"}}
    variants = [{"source": {"uri": "pvc://models/int8.onnx"}}, {"source": {"uri": "pvc://data/small.onnx"}}]
    made = job(evaluation=dataset, variants=variants)
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]
        for volume in pod(made)["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = {m["mountPath"]: (claims[m["name"]], m["readOnly"]) for m in pod(made)["containers"][0]["volumeMounts"]
              if m["name"] in claims}  # fmt: skip
    folder = arguments(made)["--claims"]
    assert mounts == {
        f"{folder}/data": ({"claimName": "data", "readOnly": True}, True),
        f"{folder}/models": ({"claimName": "models", "readOnly": True}, True),
    }


@pytest.mark.parametrize(("uri", "sees"), [("s3://m/a.npz", False), ("oci://registry/a:1", True)])
def test_logins_of_registries_are_mounted_where_one_is_read(uri: str, sees: bool) -> None:
    spec = pod(job(evaluation={"dataset": {"uri": uri}}))
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    assert secrets == (["penstock-registry"] if sees else [])
    assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "penstock-storage", "optional": True}}]


def test_a_step_may_take_three_quarters_of_the_memory() -> None:
    limited = Builder.model_validate({"resources": {"limits": {"memory": "2Gi"}}})
    assert arguments(job(limited))["--memory"] == str(3 * 2**29)
    unlimited = Builder.model_validate({"resources": {"requests": {"cpu": 1}}})
    assert "--memory" not in arguments(job(unlimited))
    assert pod(job(unlimited))["containers"][0]["resources"] == {"requests": {"cpu": 1}}


def test_a_builder_runs_where_it_is_told_to() -> None:
    placed = Builder.model_validate({"nodeSelector": {"pool": "builds"}, "podAnnotations": {"team": "blue"}})
    made = job(placed)
    assert pod(made)["nodeSelector"] == {"pool": "builds"}
    assert "tolerations" not in pod(made)
    assert made["spec"]["template"]["metadata"]["annotations"] == {"team": "blue"}


def test_the_operator_alone_reaches_a_builder() -> None:
    policy = build_jobs.network_policy(KEY, [Build("a1b2c3d4", "{}")], "penstock-system", OWNER)
    (rule,) = policy["spec"]["ingress"]
    assert rule == {
        "from": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "penstock-system"}},
                "podSelector": {"matchLabels": build_jobs.OPERATOR_LABELS},
            }
        ],
        "ports": [{"protocol": "TCP", "port": 8084}],
    }
