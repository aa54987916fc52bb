"""Replicas that KServe carries, on a real node: KServe's controller makes the pods, our router brings the requests."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.digits import Digits
from tests.rig import kserve
from tests.rig.cluster import Cluster
from tests.rig.installation import GRPC_PORT, HTTP_PORT
from tests.rig.load import steady
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

RATE, AROUND = 40, 120
"""Requests a second over both protocols, and requests before and after what happens."""


@pytest.fixture
def controller(cluster: Cluster, tmp_path: pathlib.Path) -> Iterator[None]:
    kserve.install(cluster.kubectl, os.environ)
    kserve.configure(cluster.kubectl)
    with kserve.running(cluster.kubectl, cluster.kubeconfig, tmp_path, admits=False):
        yield
        # It has to be there to let go of what it has finalizers on.
        cluster.kubectl("delete", "inferenceservices", "--all", "--all-namespaces")


@pytest.mark.usefixtures("controller", "penstock")
def test_no_request_fails_while_a_revision_moves_from_a_deployment_to_kserve_and_is_replaced_there(
    cluster: Cluster, namespace: str, node: Node, buckets: Server, tmp_path: pathlib.Path
) -> None:
    changes: dict[str, Any] = {"replicas": 2, "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}}
    digits = Digits(cluster, namespace, buckets, tmp_path, changes)
    digits.apply("first")
    deployed = digits.serving()
    http, grpc = f"127.0.0.1:{HTTP_PORT}", f"127.0.0.1:{GRPC_PORT}"
    with steady(node.inside, http, grpc, RATE, namespace, AROUND) as outcome:
        changes["runtime"] = "kserve"
        digits.apply("first")
        carried = digits.serving()
        digits.apply("next")
        replaced = digits.serving()
    assert outcome.failures == []
    assert sum(outcome.answers.values()) == outcome.sent > 2 * AROUND
    assert len({deployed, carried, replaced}) == 3
    listed = cluster.kubectl("-n", namespace, "get", "inferenceservices", "-o", "name").split()
    assert listed == [f"inferenceservice.serving.kserve.io/digits-{replaced}-fp32"]
    containers = {container["name"] for pod in digits.pods() for container in pod["spec"]["containers"]}
    assert containers == {"kserve-container"}
