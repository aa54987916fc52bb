"""What operator and router may do is what they do: their roles, against the API server's audit log of a journey."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.digits import Digits
from tests.rig import kserve, kuberay
from tests.rig.cluster import Cluster
from tests.rig.installation import NAMESPACE, Installation
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

Right = tuple[str, str]
"""Resource with its group and subresource, and verb: ("models.penstock.dev/status", "patch")."""


def granted(cluster: Cluster, name: str) -> set[Right]:
    """What the roles of a service account of the platform allow."""
    roles = [
        json.loads(cluster.kubectl("get", "clusterrole", name, "-o", "json")),
        cluster.get("role", name, namespace=NAMESPACE),
    ]
    return {
        (_named(resource.partition("/")[0], group, resource.partition("/")[2]), verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _named(resource: str, group: str, subresource: str) -> str:
    return ".".join(filter(None, (resource, group))) + (f"/{subresource}" if subresource else "")


def events(node: Node, account: str, pods: set[str]) -> Iterator[dict[str, Any]]:
    """Requests of a service account, from these pods, that were answered."""
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    for line in node.audit_log.read_text().splitlines():
        if f'"{user}"' in line:
            event = json.loads(line)
            answered = event["stage"] in ("ResponseComplete", "ResponseStarted")
            if answered and pods.intersection(event["user"]["extra"]["authentication.kubernetes.io/pod-name"]):
                yield event


def used(cluster: Cluster, node: Node, account: str) -> tuple[set[Right], set[Right]]:
    """What the account's present pods have done, and what was refused to them.

    Those of an earlier installation do not count: it may have had other rights, and who is uninstalled loses them
    before its pods end. An apply of what does not exist needs the right to create, too.
    """
    selector = ("-l", f"app.kubernetes.io/component={account.removeprefix('penstock-')}", "-o=name")
    listed = cluster.kubectl("-n", NAMESPACE, "get", "pods", *selector).split()
    done: set[Right] = set()
    refused: set[Right] = set()
    for event in events(node, account, {name.removeprefix("pod/") for name in listed}):
        about = event.get("objectRef")
        if not isinstance(about, dict):
            refused.add((str(event["requestURI"]), str(event["verb"])))
            continue
        what = _named(about["resource"], about.get("apiGroup", ""), about.get("subresource", ""))
        verb = str(event["verb"])
        # A namespace that ends and a quota refuse with 403, too.
        allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow"
        (done if allowed else refused).add((what, verb))
        if (verb, event["responseStatus"]["code"]) == ("patch", 201):
            done.add((what, "create"))
    return done, refused


@pytest.fixture
def journey(cluster: Cluster, namespace: str, penstock: Installation, buckets: Server, tmp_path: pathlib.Path) -> None:
    """A Model comes, is replaced and goes, as does its Endpoint; another has no artifact, and no data to build by;
    what would carry a third one is made, and given up.
    """
    kserve.install(cluster.kubectl, os.environ)
    kuberay.install(cluster.kubectl, os.environ)
    digits = Digits(cluster, namespace, buckets, tmp_path, {"resources": {"requests": {"cpu": "20m"}}})
    digits.apply("first")
    arms = [{"name": "all", "model": "digits", "weight": 100}]
    endpoint = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": "reader"}}
    cluster.apply({**endpoint, "spec": {"arms": arms}}, namespace=namespace)
    digits.serving()
    digits.apply("next")
    digits.serving()
    missing = {"uri": "s3://models/none", "digest": f"sha256:{'0' * 64}"}
    other = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model", "metadata": {"name": "other"}}
    cluster.apply({**other, "spec": {"source": missing}}, namespace=namespace)
    policy = ("-n", namespace, "get", "networkpolicy", "other", "--ignore-not-found", "-o", "name")
    cluster.until("pods are made for it", lambda: bool(cluster.kubectl(*policy)))
    variants = [{"name": "plain"}, {"name": "small", "passes": [{"quantize": {"mode": "dynamic"}}]}]
    evaluation = {"dataset": {"uri": "s3://models/none"}}
    cluster.apply(
        {**other, "spec": {"source": missing, "variants": variants, "evaluation": evaluation}}, namespace=namespace
    )
    refused = ("-n", namespace, "get", "model", "other", "-o", "jsonpath={.status.variants[?(@.name=='small')].state}")
    cluster.until("its build is refused", lambda: cluster.kubectl(*refused) == "Refused")
    cluster.apply({**other, "spec": {"source": {"uri": "s3://models/none"}}}, namespace=namespace)
    cluster.until("they are given up", lambda: not cluster.kubectl(*policy))
    ray = {"apiVersion": "penstock.dev/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "of-ray"}}
    ray = {**ray, "spec": {"image": "none", "formats": ["onnx"], "deployAs": "RayService"}}
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(ray))
    carried = {**other, "metadata": {"name": "carried"}}
    for runtime, kind in (("kserve", "inferenceservices"), ("of-ray", "rayservices")):
        cluster.apply({**carried, "spec": {"source": missing, "runtime": runtime}}, namespace=namespace)
        listed = ("-n", namespace, "get", kind, "-o", "name")
        cluster.until(f"one of {kind} is made", lambda listed=listed: bool(cluster.kubectl(*listed)))  # type: ignore[misc]
        if kind == "rayservices":
            _scaled(cluster, namespace)
        cluster.apply({**carried, "spec": {"source": {"uri": "s3://models/none"}}}, namespace=namespace)
        cluster.until("it is given up", lambda listed=listed: not cluster.kubectl(*listed))  # type: ignore[misc]
    cluster.kubectl("delete", "servingruntime", "of-ray")
    models = ("model/digits", "model/other", "model/carried")
    cluster.kubectl("-n", namespace, "delete", *models, "endpoint/reader")


def _scaled(cluster: Cluster, namespace: str) -> None:
    """Stand in for KubeRay, which is not there: its RayCluster has more workers than are wanted, and is told so."""
    (service,) = json.loads(cluster.kubectl("-n", namespace, "get", "rayservices", "-o", "json"))["items"]
    spec = service["spec"]["rayClusterConfig"]
    (group,) = spec["workerGroupSpecs"]
    made = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "made"},
        "spec": {**spec, "workerGroupSpecs": [{**group, "replicas": 5}]},
    }
    cluster.apply(made, namespace=namespace)
    says = {"rayClusterName": "made", "rayClusterStatus": {"desiredWorkerReplicas": 5}}
    patch = json.dumps({"status": {"activeServiceStatus": says}})
    name = service["metadata"]["name"]
    cluster.kubectl("-n", namespace, "patch", "rayservice", name, "--subresource=status", "--type=merge", "-p", patch)
    replicas = ("get", "raycluster", "made", "-o", "jsonpath={.spec.workerGroupSpecs[0].replicas}")
    cluster.until("its workers are wanted", lambda: cluster.kubectl("-n", namespace, *replicas) == "1")


@pytest.mark.usefixtures("journey")
def test_every_right_is_used_and_nothing_else_is_asked_for(cluster: Cluster, node: Node) -> None:
    accounts = ("penstock-operator", "penstock-router")
    assert {account: used(cluster, node, account) for account in accounts} == {
        account: (granted(cluster, account), set()) for account in accounts
    }
