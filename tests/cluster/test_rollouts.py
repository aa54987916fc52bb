"""A rollout moves as the evidence says, in a cluster, under steady load over both protocols."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.rig import installation, rollouts
from tests.rig.installation import GRPC_PORT, HTTP_PORT, STORE, Installation
from tests.rig.node.layout import Node
from tests.rig.s3 import Server


class Namespace:
    """Where ``rollouts.play`` plays: a namespace of the cluster."""

    def __init__(self, cluster: Cluster, node: Node, namespace: str, buckets: Server, folder: pathlib.Path) -> None:
        self.http, self.grpc = f"{node.address}:{HTTP_PORT}", f"{node.address}:{GRPC_PORT}"
        self.namespace, self.folder = namespace, folder
        self.image = installation.archives(print)["penstock-serve"].reference
        self._cluster = cluster
        self._environment = {**os.environ, **buckets.environment}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "penstock-storage"}}
        cluster.apply({**secret, "stringData": dict(buckets.environment)}, namespace=namespace)

    def apply(self, file: pathlib.Path) -> None:
        where = (f"--kubeconfig={self._cluster.kubeconfig}", f"--namespace={self.namespace}")
        command = [sys.executable, "-m", "operators.cli.main", "apply", "-f", str(file), "--store", STORE, *where]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def model(self) -> dict[str, Any]:
        return self._cluster.get("model", rollouts.MODEL, namespace=self.namespace)


@pytest.fixture
def place(
    cluster: Cluster,
    penstock: Installation,
    node: Node,
    namespace: str,
    buckets: Server,
    tmp_path: pathlib.Path,
) -> Namespace:
    return Namespace(cluster, node, namespace, buckets, tmp_path)


async def test_a_good_revision_is_promoted(place: Namespace) -> None:
    rollouts.holds(await rollouts.play(place, rollouts.GOOD), "Promoted", "not worse than allowed: 0 % of ")


async def test_a_revision_that_fails_a_twentieth_is_rolled_back(place: Namespace) -> None:
    played = await rollouts.play(place, rollouts.FAILS)
    rollouts.holds(played, "RolledBack", "requests failed, of the stable revision 0 %")
