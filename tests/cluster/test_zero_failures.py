"""Under steady load over both protocols no request fails, whatever is replaced, restarted, upgraded or killed.

The load runs in the node's network and talks to the router's NodePorts on 127.0.0.1. Its clients send nothing twice.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.digits import Digits
from tests.rig.cluster import Cluster, new_namespace
from tests.rig.installation import GRPC_PORT, HTTP_PORT, NAMESPACE, Installation
from tests.rig.load import Outcome, steady
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

RATE = 120
"""Requests a second, half of them REST and half gRPC."""
AROUND = 360
"""Requests before what happens, and after it."""
REPLICAS = 2
EAT = """
import os, signal
open("/proc/1/oom_score_adj", "w").write("1000")  # the server goes first
for _ in range(200):  # many who have little each, so that it is the largest, too
    if os.fork() == 0:
        eaten = b"x" * (8 << 20)
        signal.pause()
os.wait()
"""


@pytest.fixture(scope="module")
def digits(
    cluster: Cluster, penstock: Installation, buckets: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Digits]:
    """Two replicas of the first revision, serving; the next may serve after a test."""
    resources = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    changes = {"replicas": REPLICAS, "resources": resources}
    with new_namespace(cluster) as namespace:
        made = Digits(cluster, namespace, buckets, tmp_path_factory.mktemp("digits"), changes)
        made.apply("first")
        made.serving()
        yield made


def load(node: Node, namespace: str) -> contextlib.AbstractContextManager[Outcome]:
    http, grpc = f"127.0.0.1:{HTTP_PORT}", f"127.0.0.1:{GRPC_PORT}"
    return steady(node.inside, http, grpc, RATE, namespace, AROUND)


def replace_the_revision_twice(digits: Digits, penstock: Installation) -> None:
    for revision in ("next", "first"):
        digits.apply(revision)
        digits.serving()


def restart_the_router(digits: Digits, penstock: Installation) -> None:
    _restart(digits.cluster, "penstock-router")


def delete_a_router_pod(digits: Digits, penstock: Installation) -> None:
    pod = _pods(digits.cluster, "router")[0]
    digits.cluster.kubectl("-n", NAMESPACE, "delete", pod)
    _rolled_out(digits.cluster, "penstock-router")


def restart_the_operator(digits: Digits, penstock: Installation) -> None:
    digits.apply("next")
    _restart(digits.cluster, "penstock-operator")
    digits.serving()


def upgrade_the_release(digits: Digits, penstock: Installation) -> None:
    """Every pod of the platform is made anew, and then again by the rollback."""
    penstock.apply("--set=router.podAnnotations.upgraded=yes", "--set=operator.podAnnotations.upgraded=yes")
    penstock.helm("rollback", "penstock", f"--namespace={NAMESPACE}", "--wait")


def delete_a_model_pod(digits: Digits, penstock: Installation) -> None:
    digits.cluster.kubectl("-n", digits.namespace, "delete", "pod", digits.pods()[0]["metadata"]["name"])
    _all_back(digits)


EVENTS = (
    replace_the_revision_twice,
    restart_the_router,
    delete_a_router_pod,
    restart_the_operator,
    upgrade_the_release,
    delete_a_model_pod,
)


@pytest.mark.parametrize("event", EVENTS, ids=[event.__name__ for event in EVENTS])
def test_no_request_fails_while_we(
    event: Callable[[Digits, Installation], None], digits: Digits, penstock: Installation, node: Node
) -> None:
    with load(node, digits.namespace) as outcome:
        event(digits, penstock)
    assert outcome.failures == []
    assert sum(outcome.answers.values()) == outcome.sent > 2 * AROUND


def test_no_request_fails_when_a_model_pod_of_two_runs_out_of_memory(digits: Digits, node: Node) -> None:
    victim = digits.pods()[0]["metadata"]["name"]
    with load(node, digits.namespace) as outcome:
        with contextlib.suppress(subprocess.SubprocessError):  # it ends with the container
            digits.cluster.kubectl("-n", digits.namespace, "exec", victim, "-c", "engine", "--", "python3", "-c", EAT)

        def killed() -> bool:
            (pod,) = [pod for pod in digits.pods() if pod["metadata"]["name"] == victim]
            (engine,) = pod["status"]["containerStatuses"]
            ended: dict[str, Any] = engine["lastState"].get("terminated", {})
            return ended.get("reason") == "OOMKilled" and engine["ready"]

        digits.cluster.until("the kernel has killed the server, and it is back", killed)
    assert outcome.failures == []
    assert sum(outcome.answers.values()) == outcome.sent > 2 * AROUND


def _restart(cluster: Cluster, deployment: str) -> None:
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{deployment}")
    _rolled_out(cluster, deployment)


def _rolled_out(cluster: Cluster, deployment: str) -> None:
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{deployment}", "--timeout=180s")


def _pods(cluster: Cluster, component: str) -> list[str]:
    selector = f"app.kubernetes.io/component={component}"
    return cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o=name").split()


def _all_back(digits: Digits) -> None:
    def ready() -> bool:
        conditions = [c for pod in digits.pods() for c in pod["status"].get("conditions", [])]
        return sum((c["type"], c["status"]) == ("Ready", "True") for c in conditions) == REPLICAS

    digits.cluster.until("every replica is ready", ready)
