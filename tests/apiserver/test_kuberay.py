"""Workloads as RayServices: the API server, KubeRay's kinds and its operator are real; nothing runs in pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.conftest import DIGEST_B, Cluster, StartOperator, model
from tests.apiserver.test_operator import arms, newest, report, status
from tests.rig import kuberay
from tests.rig.control_plane import ControlPlane

KINDS = "rayservices,services,configmaps"
RUNTIME = {
    "apiVersion": "penstock.dev/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "rayserve"},
    "spec": {
        "image": "registry/penstock-rayserve:1",
        "deployAs": "RayService",
        "ports": {"http": 8000, "grpc": 9000},
        "protocols": ["v2", "grpc-v2"],
        "formats": ["onnx"],
    },
}


@pytest.fixture(scope="module")
def controller(definitions: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kuberay.install(definitions.kubectl, os.environ)
    definitions.kubectl("apply", "--filename=-", stdin=json.dumps(RUNTIME))
    with kuberay.running(definitions.kubeconfig(), tmp_path_factory.mktemp("kuberay")):
        yield
        definitions.kubectl("delete", "rayservices", "--all", "--all-namespaces")
    definitions.kubectl("delete", "servingruntime", "rayserve")
    definitions.kubectl("delete", "crd", *(f"{name}.ray.io" for name in kuberay.CRDS))


def pods(cluster: Cluster, workload: str, node: str) -> list[dict[str, Any]]:
    """Its pods that KubeRay made as head or as worker."""
    found = [cluster.get("pod", name) for name in cluster.pods(workload)]
    return [pod for pod in found if pod["metadata"]["labels"]["ray.io/node-type"] == node]


def settled(cluster: Cluster, digest: str, replicas: int) -> str:
    """Bring ``digits`` to the revision of ``digest``, standing in for kubelet, Ray and router; gives its workload."""
    cluster.until("its revision begins", lambda: digest in json.dumps(cluster.get("model", "digits").get("status", {})))
    workload = newest(cluster, "digits")
    cluster.until("KubeRay makes its workers", lambda: len(pods(cluster, workload, "worker")) == replicas)
    cluster.until("KubeRay makes its head", lambda: len(pods(cluster, workload, "head")) == 1)
    are_ready(cluster, workload)
    cluster.until("traffic moves", lambda: arms(cluster, "digits") == [workload])
    report(cluster, "digits")
    cluster.until("the rollout completes", lambda: status(cluster, "digits", "RolloutComplete") == "True")
    return workload


def are_ready(cluster: Cluster, workload: str) -> None:
    conditions = [{"type": t, "status": "True"} for t in ("Ready", "ContainersReady", "PodScheduled")]
    patch = json.dumps({"status": {"phase": "Running", "conditions": conditions}})
    for pod in cluster.pods(workload):
        cluster.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.usefixtures("controller")
def test_kuberay_makes_of_each_revision_what_is_declared_and_deleting_leaves_nothing(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator()
    cluster.apply(model(runtime="rayserve", replicas=2, resources={"requests": {"cpu": "0.5"}}))
    first = settled(cluster, "a" * 64, 2)
    assert cluster.names("rayservices") == {f"RayService/{first}"}
    assert {f"Service/{first}", "ConfigMap/digits-route"} <= cluster.names(KINDS)

    (head,), workers = pods(cluster, first, "head"), pods(cluster, first, "worker")
    (ray_cluster,) = json.loads(cluster.kubectl("get", "rayclusters", "-o", "json"))["items"]
    secret = ray_cluster["metadata"]["name"]
    assert len(cluster.get("secret", secret)["data"]["auth_token"]) > 40
    token = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "auth_token"}}}
    for pod in (head, *workers):
        (container,) = pod["spec"]["containers"]
        assert token in container["env"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        assert "ray start" in container["args"][0]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
    (engine,) = workers[0]["spec"]["containers"]
    assert [each["name"] for each in workers[0]["spec"]["initContainers"]] == ["fetch", "wait-gcs-ready"]
    assert engine["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}
    assert "initContainers" not in head["spec"]
    # The Service of the workload has the workers in it, and the head, which serves nothing, not.
    selects = cluster.get("service", first)["spec"]["selector"].items()
    assert [selects <= pod["metadata"]["labels"].items() for pod in (head, *workers)] == [False, True, True]

    cluster.apply(model(runtime="rayserve", replicas=3, resources={"requests": {"cpu": "0.5"}}))
    cluster.until("a worker is added", lambda: len(pods(cluster, first, "worker")) == 3)
    before = {pod["metadata"]["name"] for pod in (head, *workers)}
    assert before < set(cluster.pods(first))
    assert len(json.loads(cluster.kubectl("get", "rayclusters", "-o", "json"))["items"]) == 1

    cluster.apply(model(digest=DIGEST_B, runtime="rayserve", replicas=3))
    second = settled(cluster, "b" * 64, 3)
    cluster.until("the first is gone", lambda: cluster.names("rayservices") == {f"RayService/{second}"})
    cluster.until("and its pods", lambda: cluster.pods(first) == [])
    cluster.kubectl("delete", "model", "digits")
    cluster.until("nothing is left", lambda: not cluster.names(f"{KINDS},rayclusters,networkpolicies,pods"))


@pytest.mark.usefixtures("controller")
def test_a_steady_state_makes_no_write(cluster: Cluster, start_operator: StartOperator) -> None:
    first = start_operator()
    cluster.apply(model(runtime="rayserve"))
    settled(cluster, "a" * 64, 1)
    first.stop()

    def written() -> tuple[dict[str, str], list[int]]:
        found = json.loads(cluster.kubectl("get", "rayservices,rayclusters", "-o", "json"))["items"]
        generations = [each["metadata"]["generation"] for each in found]  # KubeRay goes on writing their statuses
        return cluster.versions("models,services,configmaps"), generations

    before = written()
    second = start_operator()
    cluster.until("it has looked", lambda: "outcome=done" in second.log.read_text())
    assert written() == before
