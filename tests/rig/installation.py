"""Penstock installed on a cluster by its Helm charts, as a platform engineer does it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from images.build import Built, build
from tests.rig import binaries
from tests.rig.node import images
from tests.rig.node.layout import Node

ROOT = pathlib.Path(__file__).parents[2]
CHARTS = ROOT / "helm"
ARCHIVES = ROOT / "build" / "images"
IMAGES = ("serve", "operator", "router", "builder", "triton")
NAMESPACE = "penstock-system"
HTTP_PORT, GRPC_PORT = 30080, 30900
"""NodePorts of the router."""
STORE = "s3://models/store"
"""Where builds publish; each namespace has its own way there."""


class Installation:
    """The release ``penstock`` of the charts, and ``helm`` as its owner uses it."""

    def __init__(self, kubeconfig: pathlib.Path, values: Mapping[str, Any]) -> None:
        self._kubeconfig = kubeconfig
        self._values = values
        self._helm = binaries.find(binaries.HELM, os.environ, print)

    def helm(self, *arguments: str, stdin: str = "") -> str:
        """What ``helm`` prints; a failure raises with what it says on stderr."""
        command = [str(self._helm), f"--kubeconfig={self._kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *options: str) -> None:
        """Install, or upgrade with ``options`` such as ``--set=router.replicas=3``; returns once all of it is ready."""
        begun = ("upgrade", "--install", "--wait", "--timeout=180s")
        self.helm(*begun, "penstock-crds", str(CHARTS / "penstock-crds"), f"--namespace={NAMESPACE}")
        where = (f"--namespace={NAMESPACE}", "--values=-", *options)
        self.helm(*begun, "penstock", str(CHARTS / "penstock"), *where, stdin=json.dumps(self._values))

    def remove(self) -> None:
        """Uninstall both charts; the kinds stay, as their chart says."""
        for release in ("penstock", "penstock-crds"):
            self.helm("uninstall", "--wait", "--ignore-not-found", release, f"--namespace={NAMESPACE}")


def on(kubeconfig: pathlib.Path, node: Node | None) -> Installation:
    """How Penstock is installed there: images brought to the node, or pulled by another cluster.

    Raises:
        AssertionError: it is another cluster and nothing says where it can pull from.
    """
    ports = {"http": HTTP_PORT, "grpc": GRPC_PORT} if node else {}
    # Little, since a node of two processors has other pods as well; and slow, so that a build can be met at work.
    few, most = {"cpu": "100m", "memory": "256Mi"}, {"cpu": "500m", "memory": "2Gi"}
    builder = {"resources": {"requests": few, "limits": most}}
    router = {"service": {"type": "NodePort", "nodePorts": ports}}
    values: dict[str, Any] = {"router": router, "builder": builder, "store": STORE}
    if node is not None:
        load(node, print)
    else:
        prefix = os.environ.get("PENSTOCK_TEST_IMAGES")
        assert prefix, "set PENSTOCK_TEST_IMAGES to the registry PREFIX from which this cluster can pull the images"
        values["images"] = {"registry": prefix}
    return Installation(kubeconfig, values)


def archives(say: Callable[[str], None]) -> dict[str, Built]:
    """Penstock's images in ``ARCHIVES``, built where they are out of date; ``say`` gets a line for each."""
    return build(IMAGES, ARCHIVES, say)


def load(node: Node, say: Callable[[str], None]) -> None:
    """Bring Penstock's images to the node; ``say`` gets a line for each that is built."""
    for name, built in archives(say).items():
        images.load(node, ARCHIVES / f"{name}.tar", built.reference.removeprefix("docker.io/library/"))


@contextlib.contextmanager
def namespace(kubectl: Any) -> Iterator[None]:
    """The namespace of the platform, which holds pods to the standard `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    kubectl("apply", "-f", "-", stdin=json.dumps(made))
    try:
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=120s")
