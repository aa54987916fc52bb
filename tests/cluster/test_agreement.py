"""A revision with wrong weights is found by copies of requests, before a client gets any of its answers.

The load runs in the node's network, through two replicas of the router, of which each signs for itself.
"""

from __future__ import annotations

import pathlib
from typing import Any

from tests.cluster.digits import Digits
from tests.rig.cluster import Cluster, new_namespace
from tests.rig.installation import GRPC_PORT, HTTP_PORT, Installation
from tests.rig.load import steady
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

RATE = 60
AROUND = 120
CHANGES = {
    "replicas": 1,
    "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
    "rollout": {"steps": [{"weight": 20, "for": "1m"}], "analysis": {"agreement": {"percent": 50}}},
}


def test_wrong_weights_are_rolled_back_before_a_client_gets_an_answer_of_them_and_no_request_fails(
    cluster: Cluster, penstock: Installation, buckets: Server, node: Node, tmp_path: pathlib.Path
) -> None:
    with new_namespace(cluster) as namespace:
        digits = Digits(cluster, namespace, buckets, tmp_path, CHANGES)
        digits.apply("first")
        first = digits.serving()

        def rollout() -> dict[str, Any]:
            found: dict[str, Any] = digits.object()["status"].get("rollout") or {}
            return found

        http, grpc = f"127.0.0.1:{HTTP_PORT}", f"127.0.0.1:{GRPC_PORT}"
        with steady(node.inside, http, grpc, RATE, namespace, AROUND) as outcome:
            digits.apply("broken")
            cluster.until("it is rolled back", lambda: rollout().get("state") == "RolledBack", 180)
        assert outcome.failures == []
        assert outcome.answers == {"first": outcome.sent}
        told = rollout()
        said = "with 0 % of the traffic: worse than the stable revision: its answers differ on "
        assert said in told["message"]
        assert digits.object()["status"]["revision"] == first
        accepted = {c["type"]: c["reason"] for c in digits.object()["status"]["conditions"]}["Accepted"]
        assert accepted == "Accepted"
