"""What tests of the operator share: the definitions, and an operator as its own process."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from operators.api import routes
from operators.router import daemon
from tests.rig import binaries, control_plane
from tests.rig.control_plane import ControlPlane

CRDS = pathlib.Path(__file__).parents[2] / "manifests" / "crds"
DEADLINE_S = 60


class Cluster:
    """One namespace of the control plane, as a person with kubectl sees it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.plane.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> str:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def managed(self, kinds: str = "deployments,services,configmaps") -> list[dict[str, Any]]:
        """Objects that the operator makes."""
        label = "app.kubernetes.io/managed-by=penstock,!penstock.dev/router-report"
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "-l", label, "-o", "json"))["items"]
        return items

    def names(self, kinds: str = "deployments,services,configmaps") -> set[str]:
        return {f"{item['kind']}/{item['metadata']['name']}" for item in self.managed(kinds)}

    def versions(self, kinds: str = "models,endpoints,deployments,services,configmaps") -> dict[str, str]:
        """Resource versions of everything the operator writes."""
        items = json.loads(self.kubectl("get", kinds, "-o", "json"))
        return {f"{i['kind']}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items["items"]}

    def condition(self, name: str, type_: str, kind: str = "model") -> dict[str, Any]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        found: dict[str, Any] = next((c for c in conditions if c["type"] == type_), {})
        return found

    def until(self, what: str, holds: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait until ``holds``; fails naming ``what`` after the deadline."""
        end = time.monotonic() + deadline_s
        while not holds():
            if time.monotonic() > end:
                state = self.kubectl("get", "configmaps,deployments,endpoints,jobs,models", "-o", "yaml")
                raise AssertionError(f"{what}: not so after {deadline_s} s\n{state[-6000:]}")

    def ready(self, workload: str, address: str | None = None, deployment: str = "") -> None:
        """Stand in for the kubelet this tier has not: report every replica as ready, at ``address``.

        A replica with an address is an endpoint, and for that it has to be on a node. The Deployment has the name of
        the workload unless it has another one.
        """
        wanted = self.get("deployment", deployment or workload)["spec"]["replicas"]
        # The deployment controller writes the status from ready pods, so pods are what is marked.
        self.until(
            f"{workload} has {wanted} pods",
            lambda: len(self.pods(workload)) == wanted,
        )
        for pod in self.pods(workload):
            conditions = [{"type": t, "status": "True"} for t in ("Ready", "ContainersReady", "PodScheduled")]
            addresses = {}
            if address:
                self._bind(pod)
                addresses = {"podIP": address, "podIPs": [{"ip": address}]}
            patch = json.dumps({"status": {"phase": "Running", "conditions": conditions, **addresses}})
            self.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)

    def _bind(self, pod: str) -> None:
        if "nodeName" not in self.get("pod", pod)["spec"]:
            self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
            target = {"apiVersion": "v1", "kind": "Node", "name": "node"}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
            self.kubectl("create", "-f", "-", stdin=json.dumps(binding))

    def router_pod(self, name: str) -> dict[str, Any]:
        """A pod to speak for, as a router's, in the namespace of the test; nothing runs in it."""
        container = {
            "name": "router",
            "image": "none",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": routes.ROUTER_LABELS},
                "spec": {"containers": [container], "securityContext": security},
            }
        )
        return self.get("pod", name)

    def pods(self, workload: str) -> list[str]:
        """Names of its pods that do not end."""
        selector = f"penstock.dev/workload={workload}"
        items = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]


@pytest.fixture(scope="session")
def definitions(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with Penstock's kinds."""
    _define(control_plane, CRDS)
    return control_plane


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own with manifests/install.yaml: admission policies hold for a whole cluster."""
    found = binaries.locate(os.environ, print)
    with control_plane.running(found, tmp_path_factory.mktemp("installed")) as plane:
        _define(plane, CRDS.parent / "install.yaml")
        yield plane


def _define(plane: ControlPlane, manifests: pathlib.Path) -> None:
    plane.kubectl("apply", "--server-side", "-f", str(manifests))
    for kind in ("models", "endpoints", "servingruntimes"):
        # The second fails over a definition so new that it has no conditions yet; a name that is taken is one.
        plane.kubectl("wait", f"--for=jsonpath={{.status.acceptedNames.plural}}={kind}", f"crd/{kind}.penstock.dev")
        plane.kubectl("wait", "--for=condition=Established", f"crd/{kind}.penstock.dev")


@pytest.fixture(scope="session")
def unattended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with Penstock's kinds in which nobody but the test says how many replicas are ready."""
    found = binaries.locate(os.environ, print)
    left_out = ("deployment-controller", "replicaset-controller")
    controllers = [name for name in control_plane.CONTROLLERS if name not in left_out]
    with control_plane.running(found, tmp_path_factory.mktemp("unattended"), controllers) as plane:
        _define(plane, CRDS)
        yield plane


@pytest.fixture
def cluster(definitions: ControlPlane, namespace: str) -> Cluster:
    return Cluster(definitions, namespace)


class Running:
    """An operator or a router as a process of its own, for one namespace."""

    def __init__(self, process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
        self.process = process
        self.log = log

    @property
    def health(self) -> str:
        found = re.search(r"health=(\S+)/healthz", self.log.read_text())
        assert found, self.log.read_text()
        return found[1].replace("0.0.0.0", "127.0.0.1")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


StartOperator = Callable[..., Running]
StartRouter = Callable[..., Running]


@pytest.fixture
def start_operator(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[StartOperator]:
    """Starts operators for the test's namespace; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(kubeconfig: pathlib.Path | None = None, *options: str) -> Running:
            own = ("--lease-namespace", cluster.namespace, *options)
            return stack.enter_context(_running(cluster, tmp_path, "operator", kubeconfig, own))

        yield start


@pytest.fixture
def start_router(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[StartRouter]:
    """Starts routers for the test's namespace, each in a pod's name; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(pod: dict[str, Any], *options: str, kubeconfig: pathlib.Path | None = None) -> Running:
            metadata = pod["metadata"]
            folder = tmp_path / metadata["name"]
            identity = ("--pod", metadata["name"], "--pod-namespace", cluster.namespace, "--pod-uid", metadata["uid"])
            own = (*identity, "--folder", str(folder), "--host", "127.0.0.1", "--catalog-port", "0", *options)
            stack.callback(_end_haproxy, folder)
            return stack.enter_context(_running(cluster, tmp_path, "router", kubeconfig, own))

        yield start


@contextlib.contextmanager
def _running(
    cluster: Cluster, folder: pathlib.Path, command: str, kubeconfig: pathlib.Path | None, options: tuple[str, ...]
) -> Iterator[Running]:
    log = folder / f"{command}-{len(list(folder.glob(f'{command}-*.log')))}.log"
    config = kubeconfig or cluster.plane.kubeconfig()
    line = [sys.executable, "-m", "operators.cli.main", command, "--kubeconfig", str(config)]
    line += ["--namespace", cluster.namespace, "--health-host", "127.0.0.1", "--health-port", "0", *options]
    with log.open("wb") as output:
        running = Running(subprocess.Popen(line, stdout=output, stderr=output), log)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def _end_haproxy(folder: pathlib.Path) -> None:
    """What a router that was killed leaves behind, for there is no container that ends with it."""
    left = daemon.adopt(folder / "haproxy.json")
    if left is not None:
        left.send(signal.SIGTERM)


DIGEST_A = "sha256:" + "a" * 64
DIGEST_B = "sha256:" + "b" * 64


def model(name: str = "digits", digest: str = DIGEST_A, **spec: Any) -> dict[str, Any]:
    source = {"uri": "s3://models/digits.onnx", "digest": digest}
    return {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {"source": source, **spec},
    }
