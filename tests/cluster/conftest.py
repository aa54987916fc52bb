"""A real cluster for the session: a node of the rig, or, with KUBECONFIG set, the cluster that it points to.

A node that ``make cluster`` started serves as the session's own would, and stays. Another cluster pulls images from
the registry PREFIX that ``PENSTOCK_TEST_IMAGES`` names. Tests that look into the machine take the fixture ``node``;
they are deselected on another cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig import binaries, installation, s3
from tests.rig.installation import Installation
from tests.rig.node import images, layout, lifecycle
from tests.rig.node.layout import Node

FOLDER = pathlib.Path(__file__).parent
NAME = f"tests-{hashlib.sha256(bytes(FOLDER)).hexdigest()[:8]}"
"""One a checkout, so that two can test at once and each removes what a crash of its own left."""
DEADLINE_S = 120.0


class Cluster:
    """A cluster as its administrator sees it. ``node`` is None where it is not the rig's own."""

    def __init__(
        self, kubeconfig: pathlib.Path, kubectl: pathlib.Path, node: Node | None, folder: pathlib.Path
    ) -> None:
        self.kubeconfig = kubeconfig
        self.node = node
        self._kubectl = kubectl
        self._folder = folder

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What ``kubectl`` prints; a failure raises with what it says on stderr."""
        command = self.command(*arguments)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``kubectl``, for what goes on for a while."""
        return [str(self._kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]

    def apply(self, *objects: dict[str, Any], namespace: str) -> str:
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("--namespace", namespace, "apply", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str = "", *, namespace: str) -> dict[str, Any]:
        """One object, or without a name the list of them."""
        found: dict[str, Any] = json.loads(
            self.kubectl("--namespace", namespace, "get", kind, *filter(None, [name]), "-o", "json")
        )
        return found

    def everything(self, namespace: str) -> set[str]:
        """All that is in a namespace, of every kind that can be listed, as KIND/NAME; Events left aside."""
        kinds = self.kubectl("api-resources", "--namespaced", "--verbs=list", "-o=name").split()
        wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
        return set(self.kubectl("--namespace", namespace, "get", wanted, "-o=name", "--ignore-not-found").split())

    def image(self, name: str, archive: Callable[[], pathlib.Path]) -> str:
        """The reference by which pods name the image NAME:TAG; ``archive`` makes its OCI archive where it is needed."""
        if self.node is not None:
            images.load(self.node, archive(), name)
            return name
        prefix = os.environ.get("PENSTOCK_TEST_IMAGES")
        assert prefix, f"set PENSTOCK_TEST_IMAGES to the registry PREFIX from which this cluster can pull PREFIX/{name}"
        return f"{prefix}/{name}"

    def shell_image(self) -> str:
        """An image with busybox, and no entrypoint."""
        if self.node is None:
            return "docker.io/library/busybox:1.37"
        return self.image(images.BUSYBOX, lambda: images.busybox(self._folder / "busybox.tar"))

    @contextlib.contextmanager
    def reach(self, service: str, port: int, *, namespace: str) -> Iterator[str]:
        """HOST:PORT at which this process reaches a port of a Service: a NodePort, or a port forwarded to one pod."""
        if (node := self.node) is not None:
            spec = self.get("service", service, namespace=namespace)["spec"]
            (wanted,) = [entry for entry in spec["ports"] if entry["port"] == port]
            public = {"name": f"{service}-{port}-reached"}
            copied = {key: value for key, value in wanted.items() if key != "nodePort"}
            self.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": public,
                    "spec": {"type": "NodePort", "selector": spec["selector"], "ports": [copied]},
                },
                namespace=namespace,
            )
            made = self.get("service", public["name"], namespace=namespace)["spec"]["ports"][0]["nodePort"]
            self.until(f"service {service} answers", lambda: _listens(node.address, made))
            try:
                yield f"{node.address}:{made}"
            finally:
                self.kubectl("--namespace", namespace, "delete", "service", public["name"])
        else:
            command = self.command("--namespace", namespace, "port-forward", f"service/{service}", f":{port}")
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
                assert found, f"`{' '.join(command)}` does not forward"
                try:
                    yield f"127.0.0.1:{found[1]}"
                finally:
                    process.terminate()

    def until(self, what: str, holds: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Wait until ``holds``; AssertionError naming ``what`` after the deadline."""
        end, pause = time.monotonic() + deadline_s, threading.Event()
        while not holds():
            assert time.monotonic() < end, f"{what}: not so after {deadline_s:g} s"
            pause.wait(0.2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another cluster than the rig's node, leave out the tests that look into the machine."""
    given = os.environ.get("KUBECONFIG")
    if not given or layout.of(pathlib.Path(given)) is not None:
        return
    mine = [item for item in items if "node" in getattr(item, "fixturenames", ()) and item.path.is_relative_to(FOLDER)]
    config.hook.pytest_deselected(items=mine)
    items[:] = [item for item in items if item not in mine]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing before any test's clock runs, and say so."""
    items = [item for item in session.items if item.path.is_relative_to(FOLDER)]
    given = os.environ.get("KUBECONFIG")
    mine = not given or layout.of(pathlib.Path(given)) is not None
    if session.config.option.collectonly or not items or not mine:
        return
    for target in binaries.TIERS["cluster"]:
        binaries.find(target, os.environ, _say)
    if any("penstock" in getattr(item, "fixturenames", ()) for item in items):
        installation.archives(_say)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, ready."""
    kubectl = next(target for target in binaries.TARGETS if target.name == "kubectl")
    program, folder = binaries.find(kubectl, os.environ, _say), tmp_path_factory.mktemp("cluster")
    if given := os.environ.get("KUBECONFIG"):
        yield Cluster(pathlib.Path(given), program, layout.of(pathlib.Path(given)), folder)
        return
    lifecycle.down(NAME, os.environ)
    try:
        node = lifecycle.up(NAME, os.environ, _say)
        yield Cluster(node.kubeconfig, program, node, folder)
    finally:
        lifecycle.down(NAME, os.environ)


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """The machine below the cluster."""
    assert cluster.node is not None
    return cluster.node


@pytest.fixture(scope="session")
def penstock(cluster: Cluster) -> Iterator[Installation]:
    """Penstock, installed for the session from both charts, its router at NodePorts."""
    made = installation.on(cluster.kubeconfig, cluster.node)
    with installation.namespace(cluster.kubectl):
        made.apply()
        try:
            yield made
        finally:
            made.remove()


@pytest.fixture(scope="session")
def buckets(node: Node) -> s3.Server:
    """An S3 server that pods and this process reach at the node's address."""
    return node.buckets


@contextlib.contextmanager
def new_namespace(cluster: Cluster) -> Iterator[str]:
    """An empty namespace that no other test knows, and that holds pods to the standard `restricted`."""
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    created = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(created))
    cluster.until("its service account is there", lambda: bool(cluster.kubectl("-n", name, "get", "sa", "-o", "name")))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for each test."""
    with new_namespace(cluster) as name:
        yield name


def restricted(image: str, *command: str, **container: Any) -> dict[str, Any]:
    """The spec of a pod that runs ``command`` within the standard `restricted`."""
    return {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(command),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                **container,
            }
        ],
    }


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
