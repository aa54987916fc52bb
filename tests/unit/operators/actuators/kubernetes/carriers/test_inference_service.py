from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from operators.actuators.kubernetes import drift, makers
from operators.actuators.kubernetes.carriers import inference_service
from operators.api.plan import Fetch, Key, Workload, WorkloadObserved
from operators.api.resources import Resources
from operators.planning import runtimes

KSERVE = runtimes.builtin("penstock-serve:1", "python3")["kserve"]
ARTIFACT = Fetch("s3://models/digits.onnx", "sha256:" + "a" * 64)
WORKLOAD = Workload("digits-1-a", "team", "digits", "1", "a", ARTIFACT, KSERVE, 1, Resources())


def made(workload: Workload) -> dict[str, Any]:
    owner = makers.owner(Key("Model", "team", "digits"), "uid")
    return inference_service.make(workload, owner, makers.pod(workload, "penstock-serve:1"))


def test_another_number_of_replicas_changes_no_annotation_which_kserve_would_carry_on_to_the_pods() -> None:
    one, three = made(WORKLOAD), made(dataclasses.replace(WORKLOAD, replicas=3))
    assert [each["spec"]["predictor"]["minReplicas"] for each in (one, three)] == [1, 3]
    assert drift.stamped(one)["metadata"]["annotations"] == drift.stamped(three)["metadata"]["annotations"]
    other = dataclasses.replace(WORKLOAD, artifact=Fetch("s3://models/other.onnx", ARTIFACT.digest))
    assert made(other)["metadata"]["annotations"] != one["metadata"]["annotations"]


def live(*conditions: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": "digits-1-a", "namespace": "team"},
        "spec": {"predictor": {"minReplicas": 2}},
        "status": {"conditions": list(conditions)},
    }


NO = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": "name is too long"}
WAITS = {"type": "PredictorReady", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "not yet"}
QUOTA = {"type": "ReplicaFailure", "status": "True", "message": "the moon is full"}


@pytest.mark.parametrize(
    ("conditions", "deployments", "expected"),
    [
        (
            [],
            [],
            WorkloadObserved(
                2,
                0,
                doing="KServe has made no Deployment of InferenceService digits-1-a yet; `kubectl -n team describe "
                "inferenceservice digits-1-a` says why, unless KServe's controller is down",
            ),
        ),
        (
            [NO],
            [],
            WorkloadObserved(
                2,
                0,
                reason="NotDeployed",
                message="KServe makes nothing of InferenceService digits-1-a: name is too long",
            ),
        ),
        ([WAITS], [{"status": {"readyReplicas": 1, "unavailableReplicas": 1}}], WorkloadObserved(2, 1)),
        ([], [{"status": {"readyReplicas": 2, "availableReplicas": 2}}], WorkloadObserved(2, 2)),
        (
            [WAITS],
            [{"status": {"conditions": [QUOTA]}}],
            WorkloadObserved(2, 0, reason="PodsRefused", message="pods cannot be created: the moon is full"),
        ),
    ],
    ids=["KServe is silent", "KServe says no", "one of two", "all ready", "no pods"],
)
def test_an_inference_service_is_read_with_the_deployment_that_kserve_made(
    conditions: list[dict[str, str]], deployments: list[dict[str, Any]], expected: WorkloadObserved
) -> None:
    assert inference_service.observe(live(*conditions), deployments, []) == expected
