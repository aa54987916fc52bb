"""A cluster as its administrator sees it, and a Penstock of its own in it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.rig import binaries, installation
from tests.rig.installation import Installation
from tests.rig.node import images, layout, lifecycle
from tests.rig.node.layout import Node

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


@contextlib.contextmanager
def started(name: str, folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[Cluster]:
    """The one that KUBECONFIG points to, or a node of the rig called ``name``, ready, until the block ends."""
    kubectl = next(target for target in binaries.TARGETS if target.name == "kubectl")
    program = binaries.find(kubectl, os.environ, say)
    if given := os.environ.get("KUBECONFIG"):
        yield Cluster(pathlib.Path(given), program, layout.of(pathlib.Path(given)), folder)
        return
    lifecycle.down(name, os.environ)
    try:
        node = lifecycle.up(name, os.environ, say)
        yield Cluster(node.kubeconfig, program, node, folder)
    finally:
        lifecycle.down(name, os.environ)


@contextlib.contextmanager
def with_penstock(cluster: Cluster) -> Iterator[Installation]:
    """Penstock installed there from both charts, its router at NodePorts."""
    made = installation.on(cluster.kubeconfig, cluster.node)
    with installation.namespace(cluster.kubectl):
        made.apply()
        try:
            yield made
        finally:
            made.remove()


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


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
        return True
    return False
