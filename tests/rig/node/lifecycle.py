"""A node from nothing to ready, and back."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.rig import binaries
from tests.rig.node import credentials, images, isolation, layout, packages, programs
from tests.rig.node.layout import Node, NodeError

EXPECTED = frozenset(
    {"catatonit", "containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"}
    | {"kubelet", "policies", "versitygw"}
)

WATCHES = 18
"""What the programs of a node open, 14 to 17, and a little for pods."""


def up(name: str, environ: Mapping[str, str], say: Callable[[str], None]) -> Node:
    """The node of that name, started unless it runs; what is left of a broken one is removed first.

    Raises:
        NodeError: it cannot be had here; what was begun stays for a look at its logs, until ``down`` or ``up``.
        binaries.NoBinaries: a program is missing and cannot be built.
    """
    _require_root()
    nodes = layout.root(environ)
    begun = time.monotonic()

    def step(line: str) -> None:
        say(f"{time.monotonic() - begun:4.0f} s  {line}")

    with layout.locked(nodes / f".{name}.lock"):
        if (node := layout.find(name, nodes)) is not None:
            if not (absent := EXPECTED - isolation.running(node)):
                return node
            step(f"node {name} is there without {', '.join(sorted(absent))}: starting it anew")
            isolation.remove(node)
        _require_watches()
        packages.install(step)
        targets = (*binaries.TARGETS, *binaries.NODE, binaries.S3_GATEWAY)
        found = {target.name: binaries.find(target, environ, step) for target in targets}
        node = layout.claim(name, nodes)
        step(f"isolating node {name} at {node.address}, in {node.folder}")
        isolation.create(node)
        _start(node, found, step)
        step("ready")
        return node


def _start(node: Node, found: Mapping[str, Path], step: Callable[[str], None]) -> None:
    secret = credentials.write(node)
    step("starting containerd")
    programs.start_containerd(node)
    step("starting the control plane")
    programs.start_control_plane(node, found, secret)
    step("starting the kubelet")
    programs.start_kubelet(node, found, secret)
    programs.start_buckets(node, found)
    images.load(node, images.pause(node.folder / "pause.tar"), images.PAUSE)
    archive = images.build(node.folder / "dns.tar", {"coredns": found["coredns"]}, ["/coredns"])
    images.load(node, archive, images.DNS)
    step("waiting for the first pod, the cluster's DNS")
    kubectl(node, found["kubectl"], "apply", "-f", "-", stdin=programs.dns(node))
    # It is ready when it has reached the API server by its Service: so are the network and the proxy.
    waiting = ("--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")
    kubectl(node, found["kubectl"], *waiting)
    kubectl(node, found["kubectl"], "wait", "--for=create", "serviceaccount/default", "--timeout=60s")


def down(name: str, environ: Mapping[str, str]) -> bool:
    """Remove everything of the node; whether there was anything. Raises ``NodeError`` where something resists."""
    _require_root()
    nodes = layout.root(environ)
    with layout.locked(nodes / f".{name}.lock"):
        node = layout.find(name, nodes)
        if node is not None:
            isolation.remove(node)
        isolation.uncover(nodes)
        return node is not None


def kubectl(node: Node, program: Path, *arguments: str, stdin: str = "") -> str:
    """What ``kubectl`` prints as the administrator. Raises ``NodeError`` with what it says on stderr."""
    command = [str(program), f"--kubeconfig={node.kubeconfig}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise NodeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _require_watches() -> None:
    """Refuse now what would fail later in words of its own: the machine shares out inotify by user, not by node."""
    libc, opened = ctypes.CDLL(None), []
    try:
        opened = [libc.inotify_init() for _ in range(WATCHES)]
        if -1 in opened:
            raise NodeError(
                f"a node needs {WATCHES} inotify instances and the machine has {opened.index(-1)} left: take another "
                "node down, or allow more with `sysctl -w fs.inotify.max_user_instances=1024`"
            )
    finally:
        for descriptor in opened:
            if descriptor != -1:
                os.close(descriptor)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise NodeError("a node needs root, for namespaces, mounts and cgroups: run it with sudo")
