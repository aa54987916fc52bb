"""Workloads as InferenceServices: the API server, KServe's kinds and its controller are real; nothing runs in pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.conftest import DIGEST_B, Cluster, StartOperator, model
from tests.apiserver.test_operator import arms, newest, report, status
from tests.rig import kserve
from tests.rig.control_plane import ControlPlane

KINDS = "inferenceservices,deployments,services,configmaps"


@pytest.fixture(scope="module")
def kinds(definitions: ControlPlane) -> Iterator[None]:
    kserve.install(definitions.kubectl, os.environ)
    yield
    definitions.kubectl("delete", "crd", *(f"{name}.serving.kserve.io" for name in kserve.CRDS))


@pytest.fixture(scope="module")
def controller(kinds: None, definitions: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kserve.configure(definitions.kubectl)
    with kserve.running(definitions.kubeconfig(), tmp_path_factory.mktemp("kserve")):
        yield
        definitions.kubectl("delete", "inferenceservices", "--all", "--all-namespaces")


def test_a_cluster_without_kserve_is_told_what_it_lacks_and_goes_on_once_it_is_there(
    cluster: Cluster, start_operator: StartOperator, request: pytest.FixtureRequest
) -> None:
    operator = start_operator()
    cluster.apply(model(runtime="kserve"), model("other"))
    cluster.until("it is told", lambda: status(cluster, "digits", "Accepted") == "False")
    condition = cluster.condition("digits", "Ready")
    assert (condition["reason"], condition["message"]) == (
        "KindNotInstalled",
        "model digits: spec.runtime 'kserve' is deployed as InferenceService: the cluster does not serve "
        "inferenceservices.serving.kserve.io v1beta1; install KServe, or choose a runtime that is deployed as a "
        "Deployment",
    )
    cluster.until("the other one is started", lambda: bool(cluster.names("deployments")))
    assert "inferenceservices" not in " ".join(
        line for line in operator.log.read_text().splitlines() if "WARNING" in line
    )
    request.getfixturevalue("kinds")
    cluster.until("it is made", lambda: f"InferenceService/{newest(cluster, 'digits')}" in cluster.names(KINDS))
    assert status(cluster, "digits", "Accepted") == "True"


def settled(cluster: Cluster, digest: str) -> str:
    """Bring ``digits`` to the revision of ``digest``, standing in for kubelet and router; gives its workload."""
    cluster.until("its revision begins", lambda: digest in json.dumps(revisions(cluster)[:1]))
    workload = newest(cluster, "digits")
    predictor = f"{workload}-predictor"
    cluster.until("KServe makes its Deployment", lambda: f"Deployment/{predictor}" in cluster.names("deployments"))
    cluster.ready(workload, deployment=predictor)
    cluster.until("traffic moves", lambda: arms(cluster, "digits") == [workload])
    report(cluster, "digits")
    cluster.until("the rollout completes", lambda: status(cluster, "digits", "RolloutComplete") == "True")
    return workload


def revisions(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("model", "digits").get("status", {}).get("revisions", [])
    return found


@pytest.mark.usefixtures("controller")
def test_kserve_makes_of_each_revision_what_is_declared_and_deleting_leaves_nothing(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator()
    cluster.apply(model(runtime="kserve", replicas=2))
    first = settled(cluster, "a" * 64)
    assert cluster.names(KINDS) == {
        f"InferenceService/{first}",
        f"Deployment/{first}-predictor",
        f"Service/{first}-predictor",
        f"Service/{first}",
        "ConfigMap/digits-route",
    }
    deployment = cluster.get("deployment", f"{first}-predictor")
    (engine,) = deployment["spec"]["template"]["spec"]["containers"]
    (fetch,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert (engine["name"], engine["args"], fetch["name"], deployment["spec"]["replicas"]) == (
        "kserve-container",
        ["serve", "$(PENSTOCK_MODEL_DIR)"],
        "fetch",
        2,
    )
    assert engine["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}
    assert not cluster.names("horizontalpodautoscalers,ingresses")
    pods = cluster.pods(first)

    cluster.apply(model(runtime="kserve", replicas=3))
    cluster.until("a pod is added", lambda: len(cluster.pods(first)) == 3)
    assert set(pods) < set(cluster.pods(first))

    cluster.apply(model(digest=DIGEST_B, runtime="kserve", replicas=3))
    second = settled(cluster, "b" * 64)
    cluster.until(
        "the first is gone", lambda: not [name for name in cluster.names(f"{KINDS},pods") if f"/{first}" in name]
    )
    assert f"InferenceService/{second}" in cluster.names(KINDS)
    cluster.kubectl("delete", "model", "digits")
    cluster.until("nothing is left", lambda: not cluster.names(f"{KINDS},networkpolicies,pods"))


@pytest.mark.usefixtures("controller")
def test_a_steady_state_makes_no_write(cluster: Cluster, start_operator: StartOperator) -> None:
    first = start_operator()
    cluster.apply(model(runtime="kserve"))
    settled(cluster, "a" * 64)
    kinds = f"models,{KINDS}"
    first.stop()
    before = cluster.versions(kinds)
    second = start_operator()
    cluster.until("it has looked", lambda: "outcome=done" in second.log.read_text())
    assert cluster.versions(kinds) == before


@pytest.mark.usefixtures("controller")
def test_the_status_says_why_where_kserve_says_no(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    name = "digits-" + "long" * 8
    cluster.apply(model(name, runtime="kserve"))
    cluster.until("it is told", lambda: cluster.condition(name, "Ready").get("reason") == "NotDeployed")
    assert "must be no more than 63" in cluster.condition(name, "Ready")["message"]
