"""A real cluster for the session: a node of the rig, or, with KUBECONFIG set, the cluster that it points to.

A node that ``make cluster`` started serves as the session's own would, and stays. Another cluster pulls images from
the registry PREFIX that ``PENSTOCK_TEST_IMAGES`` names. Tests that look into the machine take the fixture ``node``;
they are deselected on another cluster.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import binaries, installation, s3
from tests.rig.cluster import Cluster, new_namespace, started, with_penstock
from tests.rig.installation import Installation
from tests.rig.node import layout
from tests.rig.node.layout import Node

FOLDER = pathlib.Path(__file__).parent
NAME = f"tests-{hashlib.sha256(bytes(FOLDER)).hexdigest()[:8]}"
"""One a checkout, so that two can test at once and each removes what a crash of its own left."""


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
    with started(NAME, tmp_path_factory.mktemp("cluster"), _say) as found:
        yield found


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """The machine below the cluster."""
    assert cluster.node is not None
    return cluster.node


@pytest.fixture(scope="session")
def penstock(cluster: Cluster) -> Iterator[Installation]:
    """Penstock, installed for the session."""
    with with_penstock(cluster) as installed:
        yield installed


@pytest.fixture(scope="session")
def buckets(node: Node) -> s3.Server:
    """An S3 server that pods and this process reach at the node's address."""
    return node.buckets


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
