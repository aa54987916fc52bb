"""Taking a node down leaves nothing of it, whatever happened to it before; the session's own runs beside it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.cluster.conftest import FOLDER, NAME
from tests.rig.cluster import Cluster
from tests.rig.node import isolation, layout, lifecycle
from tests.rig.node.layout import Node

OTHER = f"{NAME}-other"
ROOT = FOLDER.parents[1]
COMMAND = (sys.executable, "-m", "tests.rig.node")


@pytest.fixture
def other(node: Node) -> Iterator[str]:
    """The name of a second node; gone with the test, failed or not."""
    yield OTHER
    lifecycle.down(OTHER, os.environ)


def left_of(node: Node) -> list[str]:
    """Everything on this machine that bears a mark of the node, as any process sees it."""
    found = [str(node.folder)] if node.folder.exists() else []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            view = pathlib.Path(f"/proc/{process.pid}")
            seen = "\n".join((*process.cmdline(), (view / "mountinfo").read_text(), (view / "cgroup").read_text()))
            if str(node.folder) in seen or node.cgroup in seen:
                found.append(str(process))
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout
    found += [line for line in links.splitlines() if f" {node.link}@" in line]
    groups = ["find", "/sys/fs/cgroup", "-name", node.cgroup]
    return found + subprocess.run(groups, capture_output=True, text=True, check=True).stdout.split()


def kill(node: Node, *names: str) -> None:
    """Kill programs of the node, each by its name."""
    every = psutil.process_iter(["name", "cmdline"])
    mine = [one for one in every if str(node.folder) in " ".join(one.info["cmdline"] or [])]
    chosen = [one for one in mine if one.info["name"] in names]
    assert {one.info["name"] for one in chosen} == set(names)
    for one in chosen:
        one.kill()
    psutil.wait_procs(chosen, 10)


def test_a_node_of_which_programs_were_killed_is_started_anew_and_goes_without_a_trace(
    cluster: Cluster, node: Node, other: str
) -> None:
    second = lifecycle.up(other, os.environ, print)
    assert second.address != node.address
    assert left_of(second)
    kill(second, "containerd", "containerd-shim-runc-v2", "etcd", "kubelet")
    status = subprocess.run([*COMMAND, "status", "--name", other], capture_output=True, text=True, cwd=ROOT)
    assert (status.returncode, status.stdout) == (
        1,
        f"node {other} is broken, without containerd, etcd, kubelet: `up` starts it anew, `down` removes it\n",
    )

    third = lifecycle.up(other, os.environ, print)
    assert lifecycle.up(other, os.environ, print) == third
    first = isolation.first(third)
    assert first is not None
    first.kill()
    psutil.wait_procs([first], 10)
    assert lifecycle.down(other, os.environ)
    assert left_of(third) == []
    assert not lifecycle.down(other, os.environ)
    assert cluster.kubectl("get", "nodes", "-o", "name") == f"node/{node.name}\n"


def test_a_start_that_was_killed_half_way_goes_without_a_trace(cluster: Cluster, other: str) -> None:
    with subprocess.Popen([*COMMAND, "up", "--name", other], stderr=subprocess.DEVNULL, cwd=ROOT) as starting:
        try:
            cluster.until("its kubelet runs", lambda: "kubelet" in running(other))
        finally:
            starting.kill()
    half = layout.find(other, layout.root(os.environ))
    assert half is not None
    assert left_of(half)
    with subprocess.Popen(half.inside("sleep", "600")) as beside:
        cluster.until("a program of the machine runs beside it", lambda: "sleep" in running(other))
        assert lifecycle.down(other, os.environ)
        beside.wait(10)
    assert left_of(half) == []


def running(name: str) -> set[str]:
    node = layout.find(name, layout.root(os.environ))
    return isolation.running(node) if node else set()
