"""The admission policies of an installation, against the API server that evaluates them."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.conftest import DIGEST_A, DIGEST_B, Cluster, model
from tests.rig.control_plane import ControlPlane

OPERATOR = "system:serviceaccount:penstock-system:penstock-operator"
ROUTER = "system:serviceaccount:penstock-system:penstock-router"
DEADLINE_S = 60


@pytest.fixture
def tenant(installed: ControlPlane) -> Iterator[Cluster]:
    """A namespace of an installation."""
    name = f"tenant-{secrets.token_hex(4)}"
    installed.kubectl("create", "namespace", name)
    yield Cluster(installed, name)
    installed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module", autouse=True)
def _enforced(installed: ControlPlane) -> None:
    """A new policy takes effect a moment after it was written; it is waited for, by what it refuses."""
    end = time.monotonic() + DEADLINE_S
    for probe in (
        model(source={"uri": "file:///x", "digest": DIGEST_A}),
        config_map("probe", {"penstock.dev/route": "probe"}),
        endpoint_slice({"penstock.dev/workload": "probe"}),
        config_map("probe", {"penstock.dev/router-report": "true"}) | {"namespace": "penstock-system"},
    ):
        namespace = probe.pop("namespace", "default")
        while True:
            try:
                installed.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=json.dumps(probe))
            except subprocess.SubprocessError as refusal:
                if "ValidatingAdmissionPolicy" in str(refusal):
                    break
                raise
            assert time.monotonic() < end, f"not refused after {DEADLINE_S} s: {probe}"


def config_map(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}


def endpoint_slice(labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "slice", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"]}],
    }


def create(tenant: Cluster, obj: dict[str, Any], user: str = "", namespace: str = "") -> None:
    """As ``user``, with every right that RBAC can give: what is refused then is refused by a policy."""
    who = (f"--as={user}", "--as-group=system:masters") if user else ()
    where = ("-n", namespace) if namespace else ()
    tenant.kubectl("create", "--dry-run=server", *where, *who, "-f", "-", stdin=json.dumps(obj))


def refusal(tenant: Cluster, obj: dict[str, Any], user: str = "", namespace: str = "") -> str:
    with pytest.raises(subprocess.SubprocessError, match="ValidatingAdmissionPolicy") as refused:
        create(tenant, obj, user, namespace)
    return str(refused.value)


LOCAL = {"uri": "file:///home/me/model.onnx", "digest": DIGEST_A}
REMOTE = {"uri": "s3://models/digits.onnx", "digest": DIGEST_B}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"source": LOCAL}, LOCAL["uri"]),
        ({"source": REMOTE, "variants": [{"name": "a"}, {"name": "b", "source": LOCAL}]}, LOCAL["uri"]),
        ({"source": REMOTE, "evaluation": {"dataset": LOCAL}}, LOCAL["uri"]),
        (
            {"source": REMOTE, "variants": [{"name": "a", "passes": [{"quantize": {"calibration": LOCAL}}]}]},
            "a file:// in spec.variants[].passes",
        ),
        (
            {
                "source": REMOTE,
                "variants": [{"name": "a", "passes": [{"distill": {"student": LOCAL, "training": {"data": REMOTE}}}]}],
            },
            "a file:// in spec.variants[].passes",
        ),
        (
            {
                "source": REMOTE,
                "variants": [{"name": "a", "passes": [{"prune": {"ratio": 0.5, "training": {"data": LOCAL}}}]}],
            },
            "a file:// in spec.variants[].passes",
        ),
        (
            {
                "source": REMOTE,
                "variants": [{"name": "a", "passes": [{"distill": {"width": 0.5, "training": {"data": LOCAL}}}]}],
            },
            "a file:// in spec.variants[].passes",
        ),
    ],
    ids=["source", "variant", "evaluation", "calibration", "student", "pruning", "distilling"],
)
def test_a_file_of_one_machine_is_refused_and_told_how_to_upload_it(
    tenant: Cluster, spec: dict[str, Any], named: str
) -> None:
    said = (
        f"model digits: {named} is on one machine, and the cluster cannot read it; `penstock apply -f FILE` uploads "
        "what FILE points to, pins its digest and applies the result"
    )
    assert said in refusal(tenant, model(**spec))


def test_a_model_whose_artifacts_a_cluster_can_read_is_taken(tenant: Cluster) -> None:
    quantized = {"name": "b", "source": REMOTE, "passes": [{"quantize": {"calibration": REMOTE}}]}
    create(tenant, model(source=REMOTE, variants=[{"name": "a"}, quantized], evaluation={"dataset": REMOTE}))


def test_a_relative_path_is_refused_and_told_how_to_upload_it(tenant: Cluster) -> None:
    with pytest.raises(subprocess.SubprocessError) as refused:
        create(tenant, model(source={"uri": "models/digits.onnx"}))
    assert "penstock apply" in str(refused.value)


ROUTE = config_map("digits-route", {"penstock.dev/route": "digits"})
REPORT = config_map("penstock-router-abc", {"penstock.dev/router-report": "true"})
ENDPOINTS = endpoint_slice({"penstock.dev/workload": "digits-1-default"})


def test_a_tenant_cannot_write_a_route_or_point_one_at_other_pods(tenant: Cluster) -> None:
    assert "jane may not write routes" in refusal(tenant, ROUTE, "jane")
    assert "jane may not write it" in refusal(tenant, ENDPOINTS, "jane")
    assert f"{ROUTER} may not write routes" in refusal(tenant, ROUTE, ROUTER)
    assert f"{OPERATOR} may not write it" in refusal(tenant, ENDPOINTS, OPERATOR)
    mirrored = "system:serviceaccount:kube-system:endpointslicemirroring-controller"
    assert "may not write it" in refusal(tenant, ENDPOINTS, mirrored)


def test_those_who_make_routes_and_endpoints_can(tenant: Cluster) -> None:
    create(tenant, ROUTE, OPERATOR)
    create(tenant, ENDPOINTS, "system:serviceaccount:kube-system:endpointslice-controller")
    create(tenant, config_map("mine"), "jane")


def test_a_tenant_cannot_change_a_route_by_taking_its_label_away(tenant: Cluster) -> None:
    as_operator = (f"--as={OPERATOR}", "--as-group=system:masters")
    tenant.kubectl("create", *as_operator, "-f", "-", stdin=json.dumps(ROUTE))
    with pytest.raises(subprocess.SubprocessError, match="may not write routes"):
        tenant.kubectl("label", "configmap", "digits-route", "penstock.dev/route-")
    with pytest.raises(subprocess.SubprocessError, match="may not write routes"):
        tenant.kubectl("patch", "configmap", "digits-route", "--type=merge", "-p", '{"data": {"a": "c"}}')
    # Deleting is for the garbage collector and for whoever may; the operator makes it again.
    tenant.kubectl("delete", "configmap", "digits-route")


def test_reports_are_the_routers_and_the_router_writes_nothing_else(tenant: Cluster) -> None:
    home = "penstock-system"
    create(tenant, REPORT, ROUTER, home)
    create(tenant, config_map("mine"), "jane", home)
    assert "label penstock.dev/router-report" in refusal(tenant, REPORT, "jane", home)
    assert "label penstock.dev/router-report" in refusal(tenant, config_map("mine"), ROUTER, home)
    patch = ("patch", "configmap", "penstock", "-n", home, "--type=merge", "-p", '{"data": {"store": "s3://evil"}}')
    with pytest.raises(subprocess.SubprocessError, match="router-report"):
        tenant.kubectl(*patch, f"--as={ROUTER}", "--as-group=system:masters", "--dry-run=server")


def test_the_pods_that_an_installation_makes_pass_restricted(tenant: Cluster) -> None:
    pods = json.loads(tenant.kubectl("get", "deployments,replicasets", "-n", "penstock-system", "-o", "json"))["items"]
    wanted = {i["metadata"]["name"]: i["spec"]["replicas"] for i in pods if i["kind"] == "Deployment"}
    assert wanted == {"penstock-operator": 2, "penstock-router": 2}

    def made() -> dict[str, int]:
        text = tenant.kubectl("get", "pods", "-n", "penstock-system", "-o", "json")
        found = [item["metadata"]["labels"] for item in json.loads(text)["items"]]
        names = [f"penstock-{labels['app.kubernetes.io/component']}" for labels in found]
        return {name: names.count(name) for name in names}

    tenant.until("every replica is a pod", lambda: made() == wanted)
