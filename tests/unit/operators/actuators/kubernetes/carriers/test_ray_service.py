from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from operators.actuators.kubernetes import isolation, makers
from operators.actuators.kubernetes.carriers import ray_service
from operators.actuators.kubernetes.resources import RAY_CLUSTERS
from operators.api.plan import Fetch, Key, Workload, WorkloadObserved
from operators.api.resources import Resources
from operators.api.runtime import Ports, ServingRuntimeSpec

RUNTIME = ServingRuntimeSpec(
    image="penstock-rayserve:1",
    deploy_as="RayService",
    ports=Ports(http=8000, grpc=9000),
    protocols=("v2", "grpc-v2"),
    formats=("onnx",),
)
ARTIFACT = Fetch("s3://models/digits.onnx", "sha256:" + "a" * 64)
WORKLOAD = Workload("digits-1-a", "team", "digits", "1", "a", ARTIFACT, RUNTIME, 2, Resources())
KEY = Key("Model", "team", "digits")
LOCK = pathlib.Path(__file__).parents[6] / "requirements" / "ray.txt"


def made(workload: Workload) -> dict[str, Any]:
    return ray_service.make(workload, makers.owner(KEY, "uid"), makers.pod(workload, "penstock-serve:1"))


def test_ray_asks_for_a_token_and_nobody_but_us_scales_or_upgrades() -> None:
    spec = made(WORKLOAD)["spec"]
    ray = spec["rayClusterConfig"]
    assert ray["authOptions"] == {"mode": "token"}
    assert ray["enableInTreeAutoscaling"] is False
    assert spec["upgradeStrategy"] == {"type": "None"}
    assert f"\nray=={ray['rayVersion']} " in LOCK.read_text()


def test_each_worker_has_one_replica_which_knows_what_it_serves_and_the_head_has_none() -> None:
    spec = made(dataclasses.replace(WORKLOAD, replicas=3, settings='{"threads": 1}'))["spec"]
    head, (workers,) = spec["rayClusterConfig"]["headGroupSpec"], spec["rayClusterConfig"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-cpus"]) == (
        3,
        "1",
        "0",
    )
    (container,) = workers["template"]["spec"]["containers"]
    assert "args" not in container
    assert [each["name"] for each in head["template"]["spec"]["volumes"]] == ["tmp"]
    config = json.loads(spec["serveConfigV2"])
    assert config["applications"] == [
        {
            "name": "penstock",
            "route_prefix": "/",
            "import_path": "serving.rayserve.application:build",
            "args": {
                "path": "/mnt/models",
                "name": "digits",
                "revision": "1",
                "variant": "a",
                "settings": '{"threads": 1}',
            },
            "deployments": [{"name": "Model", "num_replicas": 3, "ray_actor_options": {"num_cpus": 1}}],
        }
    ]
    assert (config["http_options"]["port"], config["grpc_options"]["port"]) == (8000, 9000)


def pod(serves: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "labels": {"ray.io/serve": serves}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


FAILED = {"applicationStatuses": {"penstock": {"status": "DEPLOY_FAILED", "message": "no such file"}}}
INVALID = {"type": "Ready", "status": "False", "reason": "ValidationFailed", "message": "name is too long"}


@pytest.mark.parametrize(
    ("status", "pods", "expected"),
    [
        (
            {},
            [],
            WorkloadObserved(
                2,
                0,
                doing="KubeRay has made no pod of RayService digits-1-a yet; `kubectl -n team describe rayservice "
                "digits-1-a` says why, unless KubeRay is down",
            ),
        ),
        ({}, [pod("false"), pod("true"), pod("true")], WorkloadObserved(2, 2)),
        (
            {"conditions": [INVALID]},
            [],
            WorkloadObserved(
                2, 0, reason="NotDeployed", message="KubeRay makes nothing of RayService digits-1-a: name is too long"
            ),
        ),
        (
            {"pendingServiceStatus": FAILED},
            [pod("false"), pod("true", "False")],
            WorkloadObserved(
                2, 0, reason="NotDeployed", message="Ray Serve cannot deploy RayService digits-1-a: no such file"
            ),
        ),
    ],
    ids=["KubeRay is silent", "workers are ready", "KubeRay says no", "Serve says no"],
)
def test_a_ray_service_is_read_by_its_workers(
    status: dict[str, Any], pods: list[dict[str, Any]], expected: WorkloadObserved
) -> None:
    live = {**made(WORKLOAD), "status": status}
    assert ray_service.observe(live, [], pods) == expected


def test_the_number_of_workers_is_told_to_the_clusters_that_have_another_one() -> None:
    wanted = made(dataclasses.replace(WORKLOAD, replicas=3))
    clusters = {
        "activeServiceStatus": {"rayClusterName": "old", "rayClusterStatus": {"desiredWorkerReplicas": 2}},
        "pendingServiceStatus": {"rayClusterName": "new", "rayClusterStatus": {"desiredWorkerReplicas": 3}},
    }
    ((resource, change),) = ray_service.adjust({**made(WORKLOAD), "status": clusters}, wanted)
    assert (resource, change["metadata"]) == (RAY_CLUSTERS, {"name": "old", "namespace": "team"})
    assert change["spec"] == {"workerGroupSpecs": wanted["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert list(ray_service.adjust(made(WORKLOAD), wanted)) == []


def test_its_pods_reach_each_other_and_kuberay_the_dashboard_and_nobody_else_does() -> None:
    policy = isolation.network_policy(KEY, (WORKLOAD,), "penstock-system", (), makers.owner(KEY, "uid"))
    inference, own, kuberay = policy["spec"]["ingress"]
    assert [each["port"] for each in inference["ports"]] == [8000, 9000]
    assert own == {"from": [{"podSelector": {"matchLabels": {"penstock.dev/workload": "digits-1-a"}}}]}
    assert kuberay == {
        "from": [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}}
        ],
        "ports": [{"protocol": "TCP", "port": 8265}],
    }
