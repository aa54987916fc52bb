"""Workloads as InferenceServices: the API server, KServe's kinds and its controller are real; nothing runs in pods."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import tritonclient.grpc as grpcclient

from tests.apiserver.conftest import DIGEST_B, Cluster, StartOperator, model
from tests.apiserver.test_operator import arms, newest, report, status
from tests.rig import kserve, model_server, rendering
from tests.rig.control_plane import ControlPlane

DIGITS = rendering.ROOT / "examples" / "digits"
SEVEN = DIGITS / "seven.json"
KINDS = "inferenceservices,deployments,services,configmaps"


@pytest.fixture(scope="module")
def kinds(definitions: ControlPlane) -> Iterator[None]:
    kserve.install(definitions.kubectl, os.environ)
    yield
    definitions.kubectl("delete", "crd", *(f"{name}.serving.kserve.io" for name in kserve.CRDS))


@pytest.fixture(scope="module")
def controller(kinds: None, definitions: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kserve.configure(definitions.kubectl)
    folder = tmp_path_factory.mktemp("kserve")
    with kserve.running(definitions.kubectl, definitions.kubeconfig(), folder):
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
    cluster.until("it is made", lambda: len(cluster.names("inferenceservices")) == 1)
    assert cluster.names("inferenceservices") == {f"InferenceService/{newest(cluster, 'digits')}"}
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
def test_a_plain_inference_service_of_format_onnx_is_served_by_our_server(
    cluster: Cluster, tmp_path: pathlib.Path
) -> None:
    ours = rendering.MANIFESTS / "components" / "kserve" / "runtime.yaml"
    others = [
        kserve.module(os.environ) / "config" / "runtimes" / f"kserve-{n}.yaml" for n in ("tritonserver", "openvino")
    ]
    for path in (ours, *others):
        cluster.plane.kubectl("apply", "--server-side", f"--filename={path}")
    spec = {"predictor": {"model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://models/digits.onnx"}}}
    plain = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "reader"}}
    cluster.apply({**plain, "spec": spec})
    made = ("get", "deployments,services", "-l", "serving.kserve.io/inferenceservice=reader", "-o", "json")
    line = [sys.executable, "-m", "operators.cli.main", "import", "inferenceservice", "reader"]
    line += ["--kubeconfig", str(cluster.plane.kubeconfig()), "--namespace", cluster.namespace]
    imported = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert "penstock.dev/reader" in cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=imported)
    cluster.until("KServe makes both", lambda: len(json.loads(cluster.kubectl(*made))["items"]) == 2)
    deployment, service = (cluster.get(kind, "reader-predictor") for kind in ("deployment", "service"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"], container["args"]) == (
        "kserve-container",
        "penstock-serve:0.1.0",
        ["serve", "/mnt/models", "--name=reader", "--host=0.0.0.0"],
    )
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}
    assert [(p["port"], p["targetPort"], p.get("appProtocol")) for p in service["spec"]["ports"]] == [
        (80, 8080, None),
        (9000, 9000, "kubernetes.io/h2c"),
    ]
    of_it = ("get", "pods", "-l", "serving.kserve.io/inferenceservice=reader", "-o", "json")
    cluster.until("its pod is made", lambda: bool(json.loads(cluster.kubectl(*of_it))["items"]))
    (pod,) = json.loads(cluster.kubectl(*of_it))["items"]
    fetches = [(each["name"], each["args"]) for each in pod["spec"]["initContainers"]]
    assert fetches == [("storage-initializer", ["s3://models/digits.onnx", "/mnt/models"])]
    shutil.copy(DIGITS / "model.onnx", tmp_path)
    arguments = [str(tmp_path) if each == "/mnt/models" else each for each in container["args"]]
    tensor = json.loads(SEVEN.read_text())["inputs"][0]
    instances = json.dumps({"instances": numpy.reshape(tensor["data"], tensor["shape"]).tolist()}).encode()
    with model_server.running(*arguments) as server:
        assert server.get("/v2/health/ready")[0] == 200
        v1 = json.loads(server.request("POST", "/v1/models/reader:predict", instances)[1])
        v2 = json.loads(server.request("POST", "/v2/models/reader/infer", SEVEN.read_bytes())[1])
        assert numpy.argmax(v1["predictions"][0]) == numpy.argmax(v2["outputs"][0]["data"]) == 7
        with grpcclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
            assert client.is_model_ready("reader")


@pytest.mark.usefixtures("controller")
def test_the_status_says_why_where_kserve_says_no(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    name = "digits-" + "long" * 8
    cluster.apply(model(name, runtime="kserve"))
    cluster.until("it is told", lambda: cluster.condition(name, "Ready").get("reason") == "NotDeployed")
    assert "must be no more than 63" in cluster.condition(name, "Ready")["message"]
