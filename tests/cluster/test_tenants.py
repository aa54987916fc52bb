"""Attempts of a tenant, and of nobody in particular, on what belongs to another tenant. Each test is named after one.

Tenant ``red`` has what people get: a service account with the role `edit` in its own namespace, and a pod. Tenant
``blue`` has a Model. That red reaches the router, and through it any Model it can name, is no attempt: the router asks
nobody who they are (SECURITY.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from serving.contract import MODEL_METADATA_KEY
from tests.cluster import tenancy
from tests.cluster.tenancy import Tenant
from tests.cluster.test_node import pod
from tests.cluster.test_policies import reaches
from tests.rig.cluster import Cluster
from tests.rig.installation import GRPC_PORT, HTTP_PORT, NAMESPACE, Installation
from tests.rig.load import DIGITS
from tests.rig.node.layout import Node

Object = dict[str, Any]

BUCKET_KEY = "not-for-the-engine"


@dataclasses.dataclass(frozen=True)
class Robber:
    """A service account of ``tenant`` with the role `edit` there, and the pod `thief`."""

    tenant: Tenant
    token: str

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.tenant.cluster.kubectl(f"--token={self.token}", *arguments, stdin=stdin)

    def refusal(self, *arguments: str, stdin: str = "") -> str:
        """What is said when this is refused; AssertionError if it is not."""
        with pytest.raises(subprocess.SubprocessError) as refused:
            self.kubectl(*arguments, stdin=stdin)
        return str(refused.value)

    def reaches(self, url: str) -> bool:
        """Whether anything answers the thief there."""
        return reaches(self.tenant.cluster, self.tenant.namespace, "thief", url)


@pytest.fixture(scope="module")
def blue(
    cluster: Cluster, node: Node, penstock: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tenant]:
    """The tenant that has something: the Model `secret`, which serves, with keys of a bucket."""
    with tenancy.tenant(cluster, tenancy.fill(tmp_path_factory.mktemp("blue"))) as tenant:
        keys = {"stringData": {"AWS_SECRET_ACCESS_KEY": BUCKET_KEY}}
        tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "penstock-storage"}, **keys})
        tenant.wish("secret", "first")
        tenant.until_served("secret")
        yield tenant


@pytest.fixture(scope="module")
def robber(cluster: Cluster, blue: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robber]:
    """The tenant that wants it; its own namespace has a claim `store` of its own, empty."""
    folder = tmp_path_factory.mktemp("red")
    folder.chmod(0o755)
    with tenancy.tenant(cluster, folder) as tenant:
        namespace = tenant.namespace
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "robber")
        subject = f"--serviceaccount={namespace}:robber"
        cluster.kubectl("-n", namespace, "create", "rolebinding", "robber", "--clusterrole=edit", subject)
        tenant.apply(pod("thief", cluster.shell_image(), "sleep", "3600"))
        cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/thief", "--timeout=120s")
        yield Robber(tenant, cluster.kubectl("-n", namespace, "create", "token", "robber").strip())


@pytest.mark.parametrize(
    "path",
    [
        "/apis/penstock.dev/v1alpha1/models",
        "/apis/penstock.dev/v1alpha1/namespaces/{blue}/models/secret",
        "/api/v1/namespaces/{blue}/secrets/penstock-storage",
        "/api/v1/namespaces/{blue}/configmaps/secret-route",
        "/api/v1/namespaces/penstock-system/configmaps",
    ],
)
def test_asking_the_api_server_without_saying_who(cluster: Cluster, blue: Tenant, path: str) -> None:
    server = json.loads(cluster.kubectl("config", "view", "-o", "json"))["clusters"][0]["cluster"]["server"]
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server + path.format(blue=blue.namespace), context=unverified, timeout=30)
    assert refused.value.code in (401, 403)


@pytest.mark.parametrize("what", ["model/secret", "secret/penstock-storage", "configmap/secret-route", "pods"])
def test_reading_what_another_tenant_has(blue: Tenant, robber: Robber, what: str) -> None:
    assert "Forbidden" in robber.refusal("-n", blue.namespace, "get", what)


def test_reading_the_models_of_all_tenants(robber: Robber) -> None:
    assert "Forbidden" in robber.refusal("get", "models", "--all-namespaces")


def test_reading_what_the_routers_report_of_all_tenants(robber: Robber) -> None:
    assert "Forbidden" in robber.refusal("-n", NAMESPACE, "get", "configmaps")


@pytest.mark.parametrize("verb", ["delete", "edit"])
def test_changing_another_tenants_model(blue: Tenant, robber: Robber, verb: str) -> None:
    how = ["delete"] if verb == "delete" else ["patch", "--type=merge", "-p", '{"spec": {"replicas": 0}}']
    assert "Forbidden" in robber.refusal("-n", blue.namespace, how[0], "model", "secret", *how[1:])


def test_giving_ones_own_model_a_status_with_somebody_elses_recipe(robber: Robber) -> None:
    patch = ("patch", "model", "any", "--subresource=status", "--type=merge", "-p", '{"status": {"revisions": []}}')
    assert "Forbidden" in robber.refusal("-n", robber.tenant.namespace, *patch)


def test_describing_an_engine_for_everybody(robber: Robber) -> None:
    runtime = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "mine"},
        "spec": {"image": "mine:1", "formats": ["onnx"]},
    }
    assert "Forbidden" in robber.refusal("create", "-f", "-", stdin=json.dumps(runtime))


def test_writing_a_route_that_names_another_tenants_workload(blue: Tenant, robber: Robber) -> None:
    arm = {
        "workload": f"secret-{blue.revisions('secret')[0]}-default",
        "revision": "x",
        "variant": "x",
        "weight": 10000,
    }
    labels = {"app.kubernetes.io/managed-by": "penstock", "penstock.dev/route": "mine", "penstock.dev/model": "mine"}
    metadata = {"name": "mine-route", "namespace": robber.tenant.namespace, "labels": labels}
    data = {"route.json": json.dumps({"arms": [arm], "message": ""})}
    route = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    assert "may not write routes" in robber.refusal("create", "-f", "-", stdin=json.dumps(route))
    unlabelled = {**route, "metadata": {**metadata, "labels": {}}}
    robber.kubectl("create", "-f", "-", stdin=json.dumps(unlabelled))
    label = ("label", "configmap", "mine-route", "penstock.dev/route=mine", "app.kubernetes.io/managed-by=penstock")
    assert "may not write routes" in robber.refusal("-n", robber.tenant.namespace, *label)


def test_writing_endpoints_that_lead_to_another_tenants_pod(cluster: Cluster, blue: Tenant, robber: Robber) -> None:
    address = cluster.get("pod", blue.pod("secret", blue.revisions("secret")[0]), namespace=blue.namespace)
    namespace = robber.tenant.namespace
    labels = {
        "penstock.dev/workload": "mine-1-default",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "app.kubernetes.io/managed-by": "penstock",
    }
    stolen = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "mine", "namespace": namespace, "labels": labels},
        "endpoints": [{"addresses": [address["status"]["podIP"]], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": 8080}, {"name": "h2c", "port": 9000}],
    }
    assert "Forbidden" in robber.refusal("create", "-f", "-", stdin=json.dumps(stolen))
    # Not even with a right that `edit` has not.
    right = ("--verb=create,update,patch", "--resource=endpointslices.discovery.k8s.io")
    cluster.kubectl("-n", namespace, "create", "role", "slices", *right)
    cluster.kubectl(
        "-n", namespace, "create", "rolebinding", "slices", "--role=slices", f"--serviceaccount={namespace}:robber"
    )
    said = ""

    def granted() -> bool:
        nonlocal said
        said = robber.refusal("create", "-f", "-", stdin=json.dumps(stolen))
        return "cannot create resource" not in said

    cluster.until("the right is known", granted)
    assert "Kubernetes makes them of Services" in said


def test_serving_what_lies_on_another_tenants_claim(blue: Tenant, robber: Robber) -> None:
    blue_claim = {"uri": "pvc://blue-store/first.onnx"}
    robber.tenant.wish("borrowed", "first", source=blue_claim)
    message = 'model borrowed: .* persistentvolumeclaim "blue-store" not found; create or bind the claim, or .*'
    robber.tenant.until_told("borrowed", "Ready", "False", "Unschedulable", message)


def test_connecting_to_another_tenants_server_past_the_router(cluster: Cluster, blue: Tenant, robber: Robber) -> None:
    served = cluster.get("pod", blue.pod("secret", blue.revisions("secret")[0]), namespace=blue.namespace)
    address = served["status"]["podIP"]
    assert robber.reaches(f"http://penstock-router.{NAMESPACE}/v2"), "nothing is shown by one who reaches nothing"
    assert not robber.reaches(f"http://{address}:8080/v2")
    assert not robber.reaches(f"http://{address}:9000/")


@pytest.mark.parametrize("port", [8081, 8082, 8083])
def test_connecting_to_what_is_for_the_routers_owner(cluster: Cluster, robber: Robber, port: int) -> None:
    pods = cluster.get("pods", namespace=NAMESPACE)["items"]
    found = [each for each in pods if each["metadata"]["labels"].get("app.kubernetes.io/component") == "router"]
    assert robber.reaches(f"http://{found[0]['status']['podIP']}:8080/v2")
    for each in found:
        assert not robber.reaches(f"http://{each['status']['podIP']}:{port}/metrics")


def test_connecting_to_the_operator(cluster: Cluster, robber: Robber) -> None:
    pods = cluster.get("pods", namespace=NAMESPACE)["items"]
    found = [each for each in pods if each["metadata"]["labels"].get("app.kubernetes.io/component") == "operator"]
    assert len(found) == 2
    for each in found:
        assert not robber.reaches(f"http://{each['status']['podIP']}:8081/healthz")


def test_learning_of_other_tenants_from_the_router(node: Node, blue: Tenant) -> None:
    router = f"http://{node.address}:{HTTP_PORT}"
    assert httpx.get(f"{router}/metrics").status_code == 404
    listed = httpx.post(f"{router}/v2/repository/index", content=b"{}")
    assert (listed.status_code, listed.json()) == (200, [])


def test_unloading_another_tenants_model_through_the_router(node: Node, blue: Tenant) -> None:
    base = f"http://{node.address}:{HTTP_PORT}/{blue.namespace}/secret"
    refused = httpx.post(f"{base}/v2/repository/models/secret/unload")
    assert refused.status_code >= 400
    with (
        contextlib.closing(triton_grpc.InferenceServerClient(f"{node.address}:{GRPC_PORT}")) as client,
        pytest.raises(InferenceServerException),
    ):
        client.unload_model("secret", headers={MODEL_METADATA_KEY: f"{blue.namespace}/secret"}, client_timeout=30)
    question = (DIGITS / "seven.json").read_bytes()
    assert httpx.post(f"{base}/v2/models/secret/infer", content=question).status_code == 200
    blue.until_served("secret")


@pytest.mark.parametrize(
    "path",
    [
        "/{red}/mine/../../{blue}/secret/v2/models/secret",
        "/{red}/mine/%2e%2e/%2e%2e/{blue}/secret/v2/models/secret",
        "//{blue}/secret/v2/models/secret",
        "/{blue}%2fsecret/v2/models/secret",
    ],
)
def test_naming_another_tenants_model_by_a_path_that_looks_like_ones_own(
    node: Node, blue: Tenant, robber: Robber, path: str
) -> None:
    raw = path.format(red=robber.tenant.namespace, blue=blue.namespace)
    # This client sends a path as it is; others resolve dots first.
    with contextlib.closing(http.client.HTTPConnection(node.address, HTTP_PORT, timeout=30)) as client:
        client.request("GET", raw)
        assert client.getresponse().status == 404


def test_taking_a_token_or_a_key_from_a_serving_pod(cluster: Cluster, blue: Tenant) -> None:
    name = blue.pod("secret", blue.revisions("secret")[0])
    spec = cluster.get("pod", name, namespace=blue.namespace)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert [volume for volume in spec["volumes"] if "projected" in volume or "secret" in volume] == []
    assert "penstock-storage" not in json.dumps(spec["containers"])
    assert "penstock-storage" in json.dumps(spec["initContainers"])
    look = "import os; print(sorted(os.environ), os.path.exists('/var/run/secrets'))"
    seen = cluster.kubectl("-n", blue.namespace, "exec", name, "-c", "engine", "--", "python", "-c", look)
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert seen.endswith("False\n")


def test_running_a_pod_that_is_not_restricted(cluster: Cluster, blue: Tenant) -> None:
    for namespace in (blue.namespace, NAMESPACE):
        enforce = "pod-security.kubernetes.io/enforce"
        labels = cluster.get("namespace", namespace, namespace=namespace)["metadata"]["labels"]
        assert labels[enforce] == "restricted"
        # What runs already is looked at again when the label is written, and named in a warning.
        audit = ("label", "--dry-run=server", "--overwrite", f"namespace/{namespace}", f"{enforce}-version=latest")
        done = subprocess.run(cluster.command(*audit), capture_output=True, text=True, check=True)
        assert re.search("(?i)warning", done.stderr) is None, done.stderr
        running = cluster.get("pods", namespace=namespace)["items"]
        assert {each["status"]["phase"] for each in running} == {"Running"}
