"""Triton in a cluster, as people have it there: a rollout to its server under load, and what of it is open to whom."""

from __future__ import annotations

import json
import pathlib

from serving.contract import MODEL_METADATA_KEY
from tests.cluster.digits import Digits
from tests.cluster.test_node import server
from tests.cluster.test_policies import reaches
from tests.rig import closed_calls
from tests.rig.cluster import Cluster
from tests.rig.installation import GRPC_PORT, HTTP_PORT, Installation
from tests.rig.load import steady
from tests.rig.node.layout import Node
from tests.rig.s3 import Server

RATE = 40
AROUND = 80
MEMORY_MIB = 512
CHANGES = {
    "resources": {"requests": {"cpu": "300m", "memory": "256Mi"}, "limits": {"memory": f"{MEMORY_MIB}Mi"}},
    "batching": {"maxSize": 8},
    "rollout": {"steps": [{"weight": 50, "for": "3s"}]},
}
SHARED = "import os; found = os.statvfs('/dev/shm'); print(found.f_frsize * found.f_blocks)"


def test_a_rollout_to_triton_fails_no_request_and_only_inference_is_open_and_only_to_the_router(
    cluster: Cluster, penstock: Installation, namespace: str, buckets: Server, node: Node, tmp_path: pathlib.Path
) -> None:
    digits = Digits(cluster, namespace, buckets, tmp_path, CHANGES)
    digits.apply("first")
    first = digits.serving()
    with steady(node.inside, f"127.0.0.1:{HTTP_PORT}", f"127.0.0.1:{GRPC_PORT}", RATE, namespace, AROUND) as outcome:
        Digits(cluster, namespace, buckets, tmp_path, CHANGES | {"runtime": "triton"}).apply("first")
        assert digits.serving() != first
        cluster.until("Triton alone is left", lambda: len(digits.pods()) == 1)
    assert outcome.failures == []
    assert outcome.answers == {"first": outcome.sent}
    assert digits.object()["status"]["rollout"]["state"] == "Promoted"

    (pod,) = digits.pods()
    name, (container,) = pod["metadata"]["name"], pod["spec"]["containers"]
    assert container["image"].rpartition("/")[2].startswith("penstock-triton:")
    shared = cluster.kubectl("-n", namespace, "exec", name, "--", "python", "-c", SHARED)
    assert int(shared) == MEMORY_MIB * 2**20

    server(cluster, namespace, "thief")
    said = cluster.kubectl("-n", namespace, "logs", name).splitlines()
    ports = next(json.loads(line) for line in said if line.startswith('{"http_port"'))
    for port in (ports["http_port"], ports["metrics_port"]):
        assert not reaches(cluster, namespace, "thief", f"http://{pod['status']['podIP']}:{port}/v2/health/ready")
    address = node.address
    metadata = {MODEL_METADATA_KEY: f"{namespace}/digits"}
    told = closed_calls.refusals(f"{address}:{HTTP_PORT}/{namespace}/digits", f"{address}:{GRPC_PORT}", metadata)
    asked, undone = "change that instead of loading it", "delete that instead of unloading it"
    assert set(told) == {
        *(
            f"model '{model}' is managed by its declaration; {why}"
            for model in ("digits", "other")
            for why in (asked, undone)
        ),
        "This API is restricted",
        "This protocol is restricted",
        "Unable to find shared memory region: 'penstock'",
    }

    (same,) = digits.pods()
    assert same["metadata"]["name"] == name
    assert same["status"]["containerStatuses"][0]["restartCount"] == 0
