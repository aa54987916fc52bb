"""The charts as a platform engineer uses them: test, upgrade, roll back, uninstall; models do not notice."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.digits import Digits
from tests.rig import rendering
from tests.rig.cluster import Cluster
from tests.rig.installation import NAMESPACE, Installation
from tests.rig.s3 import Server

RELEASE = ("penstock", f"--namespace={NAMESPACE}")
KINDS = {f"{kind}.penstock.dev" for kind in ("models", "endpoints", "servingruntimes")}


@pytest.fixture
def digits(cluster: Cluster, namespace: str, penstock: Installation, buckets: Server, tmp_path: pathlib.Path) -> Digits:
    """The digits Model, serving."""
    made = Digits(cluster, namespace, buckets, tmp_path, {"resources": {"requests": {"cpu": "20m"}}})
    made.apply("first")
    made.serving()
    return made


def pods(cluster: Cluster, component: str) -> set[str]:
    """UIDs of the platform's pods that are not being deleted."""
    label = f"app.kubernetes.io/part-of=penstock,app.kubernetes.io/component={component}"
    found = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", label, "-o", "json"))["items"]
    return {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


def served_by(digits: Digits) -> set[tuple[str, int]]:
    """Which pods serve the Model, and how often their containers began anew."""
    return {
        (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"]["containerStatuses"]))
        for pod in digits.pods()
    }


def left(cluster: Cluster) -> set[str]:
    """Names of all objects, of whatever kind, that carry the label of the platform."""
    found = []
    for scope, where in (("--namespaced=true", ("--all-namespaces",)), ("--namespaced=false", ())):
        kinds = cluster.kubectl("api-resources", scope, "--verbs=list", "-o", "name").split()
        names = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses")))
        label = "app.kubernetes.io/part-of=penstock"
        found += cluster.kubectl("get", names, *where, "-l", label, "-o", "name").split()
    return {name.partition("/")[2] for name in found}


def test_the_chart_tests_itself(penstock: Installation) -> None:
    said = penstock.helm("test", *RELEASE, "--timeout=120s")
    assert re.findall(r"^Phase: +(\w+)$", said, re.MULTILINE) == ["Succeeded", "Succeeded"]


def test_an_upgrade_and_a_rollback_replace_the_platform_and_no_model_pod(
    cluster: Cluster, penstock: Installation, digits: Digits
) -> None:
    models = served_by(digits)
    before = pods(cluster, "operator") | pods(cluster, "router")
    penstock.apply("--set=operator.podAnnotations.turn=two", "--set=router.podAnnotations.turn=two")
    upgraded = pods(cluster, "operator") | pods(cluster, "router")
    assert len(before) == len(upgraded) == 4
    assert not before & upgraded
    penstock.helm("rollback", *RELEASE, "--wait", "--timeout=180s")
    rolled_back = pods(cluster, "operator") | pods(cluster, "router")
    assert not upgraded & rolled_back
    assert digits.settled()
    assert served_by(digits) == models


def test_a_mistyped_value_is_refused_and_named(penstock: Installation) -> None:
    chart = str(rendering.CHARTS / "penstock")
    with pytest.raises(Exception, match=r"router.*additional properties 'replica' not allowed"):
        penstock.helm("upgrade", *RELEASE, chart, "--set=router.replica=3")


def test_uninstalling_leaves_the_kinds_and_the_models_and_nothing_else_and_models_serve_on(
    cluster: Cluster, penstock: Installation, digits: Digits
) -> None:
    models = served_by(digits)
    penstock.remove()
    try:
        # Its pods are given time to end, which Helm does not wait for.
        cluster.until("only the kinds are left", lambda: left(cluster) == KINDS)
        # What Kubernetes puts into every namespace.
        assert cluster.everything(NAMESPACE) == {"configmap/kube-root-ca.crt", "serviceaccount/default"}
        assert served_by(digits) == models
    finally:
        penstock.apply()
    # The new operator finds all as it should be.
    cluster.until("the operator has seen the Model again", digits.settled)
    assert served_by(digits) == models


def test_models_come_from_values(
    cluster: Cluster, penstock: Installation, digits: Digits, namespace: str, until_gone: Callable[[str], None]
) -> None:
    source: dict[str, Any] = digits.object()["spec"]["source"]
    values = {"models": {"from-values": {"source": source, "resources": {"requests": {"cpu": "20m"}}}}}
    chart = str(rendering.CHARTS / "penstock-models")
    release = ("models", f"--namespace={namespace}")
    penstock.helm("install", *release, chart, "--values=-", stdin=json.dumps(values))
    cluster.until("it serves", lambda: _is_ready(cluster, namespace), 180)
    penstock.helm("uninstall", *release, "--wait")
    until_gone("from-values")


@pytest.fixture
def until_gone(cluster: Cluster, namespace: str) -> Callable[[str], None]:
    """Waits until nothing is left of a Model."""

    def wait(name: str) -> None:
        kinds = "deployments,services,configmaps,networkpolicies,pods"
        label = f"penstock.dev/model={name}"
        cluster.until(
            f"nothing is left of {name}",
            lambda: not cluster.kubectl("get", kinds, "-n", namespace, "-l", label, "-o", "name", "--ignore-not-found"),
        )

    return wait


def _is_ready(cluster: Cluster, namespace: str) -> bool:
    conditions = cluster.get("model", "from-values", namespace=namespace).get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)
