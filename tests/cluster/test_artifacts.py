"""Models from every kind of source, fetched by real pods with credentials that only the fetch sees."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from operators.cli.show import amount
from tests.rig import binaries, registry, s3
from tests.rig.cluster import Cluster
from tests.rig.installation import Installation
from tests.rig.node.layout import Node
from tests.rig.registry import Registry

DIGITS = pathlib.Path(__file__).parents[2] / "examples" / "digits"
DIGEST = f"sha256:{hashlib.sha256((DIGITS / 'model.onnx').read_bytes()).hexdigest()}"


@pytest.fixture
def bucket(buckets: s3.Server) -> s3.Server:
    """The node's, with the digits in it."""
    shutil.copy(DIGITS / "model.onnx", buckets.folder / "models" / "digits.onnx")
    return buckets


@pytest.fixture
def closed(node: Node, tmp_path: pathlib.Path) -> Iterator[Registry]:
    """A registry that wants a login, there too."""
    binary = binaries.find(binaries.REGISTRY, os.environ, print)
    with registry.running(
        binary, tmp_path / "registry", closed=True, address=node.address, within=node.inside()
    ) as running:
        yield running


class Tenant:
    """One namespace, with kubectl and `penstock`."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def secret(self, name: str, **values: str) -> None:
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values},
            namespace=self.namespace,
        )

    def penstock(self, *arguments: str, **environment: str) -> str:
        """What the command line prints; a failure raises with what it says."""
        place = ["--kubeconfig", str(self.cluster.kubeconfig), "--namespace", self.namespace]
        command = [sys.executable, "-m", "operators.cli.main", *arguments, *place]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def model(self, uri: str, replicas: int = 1, digest: str = DIGEST) -> None:
        resources = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
        spec = {"source": {"uri": uri, "digest": digest}, "replicas": replicas, "resources": resources}
        self.cluster.apply(
            {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"}, "spec": spec},
            namespace=self.namespace,
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("model", "digits", namespace=self.namespace).get("status", {})
        return found

    def ready(self) -> dict[str, Any]:
        found = [c for c in self.status().get("conditions", []) if c["type"] == "Ready"]
        return found[0] if found else {}

    def serves(self, replicas: int = 1) -> None:
        try:
            self.cluster.until("the model answers", lambda: self.ready().get("status") == "True")
            self.cluster.until("every replica does", lambda: self.status().get("readyReplicas") == replicas)
        except AssertionError as error:
            pods = self.kubectl("get", "pods", "-o", "wide")
            raise AssertionError(f"{error}\n{json.dumps(self.ready())}\n{pods}") from error

    def pods(self) -> list[str]:
        items = self.cluster.get("pods", namespace=self.namespace)["items"]
        return [item["metadata"]["name"] for item in items]


@pytest.fixture
def tenant(cluster: Cluster, penstock: Installation, namespace: str) -> Tenant:
    return Tenant(cluster, namespace)


def test_a_yaml_of_the_laptop_is_uploaded_served_and_asked(tenant: Tenant, bucket: s3.Server) -> None:
    tenant.secret("penstock-storage", **bucket.environment)
    # A store that no other test has put it into.
    environment = {**bucket.environment, "PENSTOCK_STORE": f"s3://models/{tenant.namespace}"}
    uri = f"s3://models/{tenant.namespace}/{DIGEST.replace(':', '-')}/model.onnx"
    size = amount((DIGITS / "model.onnx").stat().st_size)
    said = [tenant.penstock("apply", "-f", str(DIGITS / "plain.yaml"), **environment) for _ in range(2)]
    assert said == [
        f"model.onnx uploaded, {size}: {uri}\nmodels/digits created\n",
        f"model.onnx is already there: {uri}\nmodels/digits unchanged\n",
    ]
    tenant.serves()
    answer = tenant.penstock("infer", "digits", "--input", str(DIGITS / "seven.png"))
    assert answer.startswith("digits: seven (")
    assert "1/1" in tenant.penstock("get", "models")
    assert uri in tenant.penstock("describe", "model", "digits")


def test_an_object_of_a_bucket_is_fetched_with_keys_that_the_engine_does_not_see(
    tenant: Tenant, bucket: s3.Server
) -> None:
    tenant.secret("penstock-storage", **bucket.environment)
    tenant.model("s3://models/digits.onnx")
    tenant.serves()
    (pod,) = tenant.pods()
    code = "import os; print(sorted(name for name in os.environ if name.startswith('AWS')), os.listdir('/mnt'))"
    assert tenant.kubectl("exec", pod, "-c", "engine", "--", "python", "-c", code) == "[] ['models']\n"


def test_a_claim_is_read(tenant: Tenant, tmp_path: pathlib.Path) -> None:
    (tmp_path / "volume" / "digits").mkdir(parents=True)
    shutil.copy(DIGITS / "model.onnx", tmp_path / "volume" / "digits" / "model.onnx")
    (tmp_path / "volume").chmod(0o755)
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": tenant.namespace}
    place = {"hostPath": {"path": str(tmp_path / "volume")}}
    asked = {"accessModes": spec["accessModes"], "storageClassName": tenant.namespace}
    tenant.cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": tenant.namespace}, "spec": spec | place},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "store"},
            "spec": {**asked, "resources": {"requests": {"storage": "1Gi"}}},
        },
        namespace=tenant.namespace,
    )
    try:
        tenant.model("pvc://store/digits/model.onnx")
        tenant.serves()
    finally:
        tenant.kubectl("delete", "model,pvc", "--all", "--wait=false")
        tenant.cluster.kubectl("delete", "pv", tenant.namespace, "--wait=false")


def test_an_artifact_of_a_registry_is_fetched_once_its_login_is_there(tenant: Tenant, closed: Registry) -> None:
    closed.push("models/digits", "v1", {"model.onnx": (DIGITS / "model.onnx").read_bytes()})
    uri = f"oci://{closed.host}/models/digits:v1"
    tenant.secret("penstock-storage", PENSTOCK_PLAIN_HTTP=closed.host)
    tenant.model(uri)
    why = f"{uri} may not be read: the registry wants credentials and none are set"
    tenant.cluster.until("the condition says why", lambda: why in tenant.ready().get("message", ""))
    login = (f"--docker-server={closed.host}", f"--docker-username={registry.USER}")
    tenant.kubectl(
        "create", "secret", "docker-registry", "penstock-registry", *login, f"--docker-password={registry.PASSWORD}"
    )
    tenant.kubectl("delete", "pods", "--all", "--wait=false")
    tenant.serves()


@pytest.fixture
def cached(penstock: Installation) -> Iterator[None]:
    """Each node keeps what was fetched there."""
    penstock.apply("--set=cache.enabled=true")
    yield
    penstock.apply()


def test_a_second_replica_starts_when_the_source_is_gone(
    tenant: Tenant, node: Node, tmp_path: pathlib.Path, cached: None
) -> None:
    binary = binaries.find(binaries.S3_GATEWAY, os.environ, print)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(s3.running(binary, tmp_path / "buckets", node.address, node.inside()))
        shutil.copy(DIGITS / "model.onnx", source.folder / "models" / "digits.onnx")
        tenant.secret("penstock-storage", **source.environment)
        tenant.model("s3://models/digits.onnx")
        tenant.serves()
        stack.close()
    tenant.model("s3://models/digits.onnx", replicas=2)
    tenant.serves(2)
