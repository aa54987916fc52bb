"""A tenant: a namespace with Models of the digits, whose artifacts lie on a claim bound to a folder of the node."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from tests.rig.cluster import Cluster
from tests.rig.load import DIGITS

Object = dict[str, Any]

SMALL: Object = {"requests": {"cpu": "10m", "memory": "16Mi"}}


class Tenant:
    """A namespace whose Models' artifacts lie on a claim."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def apply(self, *objects: Object) -> None:
        self.cluster.apply(*objects, namespace=self.namespace)

    def wish(self, name: str, revision: str, **spec: Any) -> None:
        """Have the Model ``name`` serve the ``first`` or the ``next`` digits model."""
        file = (DIGITS if revision == "first" else DIGITS / "next") / "model.onnx"
        digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        source = {"uri": f"pvc://store/{revision}.onnx"} | spec.pop("source", {}) | {"digest": digest}
        wished = {"source": source, "resources": SMALL, **spec}
        kind = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Model"}
        self.apply({**kind, "metadata": {"name": name}, "spec": wished})

    def limit(self, pods: int) -> None:
        """Have no more than so many pods, and wait until that holds."""
        hard = {"pods": str(pods)}
        self.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}})
        self.cluster.until(
            "the quota counts",
            lambda: (
                self.cluster.get("resourcequota", "small", namespace=self.namespace).get("status", {}).get("hard")
                == hard
            ),
        )

    def condition(self, name: str, type_: str) -> tuple[str, str, str]:
        """Status, reason and message, once they speak of the spec as it is."""
        found = self.cluster.get("model", name, namespace=self.namespace)
        for condition in found.get("status", {}).get("conditions", []):
            if (condition["type"], condition["observedGeneration"]) == (type_, found["metadata"]["generation"]):
                return condition["status"], condition["reason"], condition["message"]
        return "Unknown", "", ""

    def until_told(self, name: str, type_: str, status: str, reason: str, message: str) -> None:
        """Wait until a condition is this; ``message`` is a pattern of all of it."""
        told: list[tuple[str, str, str]] = []

        def holds() -> bool:
            told[:] = [self.condition(name, type_)]
            return told[0][:2] == (status, reason) and re.fullmatch(message, told[0][2]) is not None

        try:
            self.cluster.until(f"{type_} of {name} is told", holds)
        except AssertionError as error:
            raise AssertionError(f"{error}: expected {(status, reason, message)}, found {told}") from None

    def until_served(self, name: str) -> str:
        """Wait until what was wished last has all traffic; gives the revision."""
        self.until_told(name, "RolloutComplete", "True", "Complete", ".*")
        self.until_told(name, "Ready", "True", "Serving", ".*")
        return self.revisions(name)[0]

    def revisions(self, name: str) -> list[str]:
        """Newest first."""
        return [r["name"] for r in self.cluster.get("model", name, namespace=self.namespace)["status"]["revisions"]]

    def pod(self, name: str, revision: str) -> str:
        """The one pod of a revision; empty if there is none."""
        selector = f"penstock.dev/model={name},penstock.dev/revision={revision}"
        found = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-l", selector, "-o", "name").split()
        assert len(found) <= 1, found
        return found[0].removeprefix("pod/") if found else ""

    def line(self, name: str) -> list[str]:
        """What ``kubectl get models`` shows: name, ready, reason, variant, revision, replicas, URL, age."""
        return self.cluster.kubectl("-n", self.namespace, "get", "models", name, "--no-headers").split()


@contextlib.contextmanager
def tenant(cluster: Cluster, folder: pathlib.Path) -> Iterator[Tenant]:
    """A tenant in a new namespace; the claim ``store`` is bound to ``folder`` of the node."""
    namespace = f"trouble-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    size, common = {"storage": "1Gi"}, {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    reference = {"namespace": namespace, "name": "store"}
    volume = {**common, "capacity": size, "hostPath": {"path": str(folder)}, "claimRef": reference}
    claim = {**common, "volumeName": namespace, "resources": {"requests": size}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "store"}, "spec": claim},
        namespace=namespace,
    )
    try:
        # A pod that the scheduler meets before its claim is bound may wait for five minutes.
        bound = f"the claim of {namespace} is bound"
        cluster.until(bound, lambda: cluster.get("pvc", "store", namespace=namespace)["status"]["phase"] == "Bound")
        yield Tenant(cluster, namespace)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        cluster.kubectl("delete", "persistentvolume", namespace, "--wait=false")


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Put both revisions of the digits model into ``folder``, for every pod of the node to read."""
    for revision, source in (("first", DIGITS), ("next", DIGITS / "next")):
        shutil.copy(source / "model.onnx", folder / f"{revision}.onnx")
    folder.chmod(0o755)
    return folder
