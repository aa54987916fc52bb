"""Traefik as the cluster's Gateway, in the node's network, in front of real pods."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.rig import gateway
from tests.rig.cluster import Cluster
from tests.rig.gateway import Traefik
from tests.rig.installation import Installation
from tests.rig.load import FIRST, NEXT, steady
from tests.rig.node.layout import Node

ROOT = pathlib.Path(__file__).parents[2]
RATE = 60
"""Requests a second. Traefik sends gRPC to the server's own gRPC port, where 128 may wait: a machine that is busy with
other things for 2.5 s would fill that at 100 a second.
"""
AROUND = 180
"""Requests before and after the replacement."""
CLAIM = "models"
pytestmark = pytest.mark.timeout(900)
"""The installation's way to the Gateway and back counts as time of the first and the last test."""
GATEWAYS = "gateways"


@pytest.fixture(scope="module")
def traefik(
    cluster: Cluster, node: Node, penstock: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Traefik]:
    """The installation without its router: Gateway ``gateways/penstock`` carries the traffic of all namespaces."""
    gateway.install(cluster.kubectl, os.environ)
    cluster.kubectl("create", "namespace", GATEWAYS)
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    authority, folder = node.folder / "credentials" / "ca.crt", tmp_path_factory.mktemp("traefik")
    with gateway.running(node.url, token, authority, None, folder, node.inside) as running:
        cluster.apply(running.gateway("penstock", namespaces={"from": "All"}), namespace=GATEWAYS)
        try:
            penstock.apply(f"--set=gateway.namespace={GATEWAYS}", "--set=gateway.name=penstock")
            yield running
        finally:
            penstock.apply()
    cluster.kubectl("delete", "namespace", GATEWAYS)
    cluster.kubectl("delete", "crd", *(f"{kind}.gateway.networking.k8s.io" for kind in gateway.KINDS))


@pytest.fixture
def volume(cluster: Cluster, node: Node, namespace: str, tmp_path: pathlib.Path) -> Iterator[None]:
    """A claim with the example's revisions ``first.onnx`` and ``next.onnx``."""
    folder = tmp_path / "models"
    folder.mkdir(mode=0o755)
    for name, revision in (("first", FIRST), ("next", NEXT)):
        shutil.copyfile(revision.parent / "model.onnx", folder / f"{name}.onnx")
    shared = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {**shared, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)}},
    }
    wanted = {**shared, "volumeName": namespace, "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": wanted}
    cluster.apply(volume, claim, namespace=namespace)
    yield
    cluster.kubectl("delete", "pv", namespace, "--wait=false")


def model(name: str, revision: str, **spec: Any) -> dict[str, Any]:
    """The digits example with its source in the claim."""
    path = {"first": FIRST, "next": NEXT}[revision]
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    digest = hashlib.sha256((path.parent / "model.onnx").read_bytes()).hexdigest()
    source = {"uri": f"pvc://{CLAIM}/{revision}.onnx", "digest": f"sha256:{digest}"}
    return {**found, "metadata": {"name": name}, "spec": {**found["spec"], "source": source, **spec}}


def condition(cluster: Cluster, namespace: str, name: str, type_: str, kind: str = "model") -> dict[str, Any]:
    found = cluster.get(kind, name, namespace=namespace)
    conditions = found.get("status", {}).get("conditions", [])
    told: dict[str, Any] = next((c for c in conditions if c["type"] == type_), {})
    return told if told.get("observedGeneration") == found["metadata"]["generation"] else {}


def deployments(cluster: Cluster, namespace: str) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.get("deployments", namespace=namespace)["items"]]


def test_a_revision_is_replaced_behind_a_gateway_without_a_failed_request(
    cluster: Cluster, node: Node, namespace: str, traefik: Traefik, volume: None
) -> None:
    cluster.apply(model("digits", "first", replicas=2), namespace=namespace)
    cluster.until(
        "the first revision serves", lambda: condition(cluster, namespace, "digits", "Ready").get("status") == "True"
    )
    http, grpc = f"127.0.0.1:{traefik.http_port}", f"127.0.0.1:{traefik.grpc_port}"
    with steady(node.inside, http, grpc, RATE, namespace, AROUND) as outcome:
        cluster.apply(model("digits", "next", replicas=2), namespace=namespace)
        cluster.until(
            "the next revision serves",
            lambda: condition(cluster, namespace, "digits", "RolloutComplete").get("status") == "True",
        )
        cluster.until("the first one is gone", lambda: len(deployments(cluster, namespace)) == 1)
        pods = cluster.get("pods", namespace=namespace)["items"]
        cluster.kubectl("-n", namespace, "delete", "pod", pods[0]["metadata"]["name"])
    assert outcome.failures == []
    assert set(outcome.answers) == {"first", "next"}
    assert sum(outcome.answers.values()) == outcome.sent
    said = condition(cluster, namespace, "digits", "RolloutComplete")["message"]
    assert said.endswith(f" has all traffic, by the status of Gateway {GATEWAYS}/penstock")


def test_an_endpoint_behind_a_gateway_shares_requests_among_its_models(
    cluster: Cluster, node: Node, namespace: str, traefik: Traefik, volume: None
) -> None:
    arms = [{"name": "control", "model": "digits", "weight": 75}, {"name": "new", "model": "wide", "weight": 25}]
    endpoint = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": "reader"}}
    cluster.apply(model("digits", "first"), model("wide", "next"), namespace=namespace)
    cluster.apply({**endpoint, "spec": {"arms": arms}}, namespace=namespace)
    cluster.until(
        "the endpoint is ready",
        lambda: condition(cluster, namespace, "reader", "Ready", "endpoint").get("status") == "True",
    )
    url = cluster.get("endpoint", "reader", namespace=namespace)["status"]["url"]
    cluster.until("it answers", lambda: asked(node, url).returncode == 0)
    names = [json.loads(asked(node, url).stdout)["name"] for _ in range(100)]
    # A gateway that takes up a change of addresses begins its round anew: one request a change may fall otherwise.
    assert set(names) == {"digits", "wide"}
    assert names.count("wide") == pytest.approx(25, abs=2)


def asked(node: Node, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(node.inside("curl", "-sf", url), capture_output=True, text=True)
