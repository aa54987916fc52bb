"""The cluster that every other test here stands on."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import urllib.request
from typing import Any

from tests.cluster.conftest import restricted
from tests.rig.cluster import Cluster
from tests.rig.node import images
from tests.rig.node.layout import Node

SERVER = ("sh", "-c", "mkdir -p /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www")


def pod(name: str, image: str, *command: str, **container: object) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app": name}}
    spec = {"restartPolicy": "Never", **restricted(image, *command, **container)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def server(cluster: Cluster, namespace: str, name: str) -> None:
    """A pod that answers its own name at port 80 of a Service of that name, ready."""
    scratch = {"name": "tmp", "mountPath": "/tmp"}
    made = pod(
        name,
        cluster.shell_image(),
        *SERVER,
        volumeMounts=[scratch],
        readinessProbe={"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    )
    made["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    cluster.apply(made, {**service, "spec": {"selector": {"app": name}, "ports": ports}}, namespace=namespace)
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def test_a_service_of_a_restricted_pod_answers(cluster: Cluster, namespace: str) -> None:
    server(cluster, namespace, "web")
    with (
        cluster.reach("web", 80, namespace=namespace) as address,
        urllib.request.urlopen(f"http://{address}", timeout=10) as answer,
    ):
        assert answer.read() == b"web\n"


def test_a_node_port_answers_on_loopback_in_the_network_of_the_node(
    cluster: Cluster, node: Node, namespace: str
) -> None:
    server(cluster, namespace, "web")
    with cluster.reach("web", 80, namespace=namespace) as address:
        inside = address.replace(node.address, "127.0.0.1")
        client = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
        command = node.inside(sys.executable, "-c", client, f"http://{inside}")
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "web\n\n"


def test_a_claim_of_a_folder_of_the_machine_is_mounted(
    node: Node, cluster: Cluster, namespace: str, tmp_path: pathlib.Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "given").write_text("by the machine\n")
    size, mode = {"storage": "1Mi"}, ["ReadOnlyMany"]
    volume = {"accessModes": mode, "capacity": size, "storageClassName": "", "hostPath": {"path": str(tmp_path)}}
    claim = {"accessModes": mode, "resources": {"requests": size}, "storageClassName": "", "volumeName": namespace}
    reader = pod(
        "reader", cluster.shell_image(), "cat", "/data/given", volumeMounts=[{"name": "data", "mountPath": "/data"}]
    )
    reader["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}]
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
        reader,
        namespace=namespace,
    )
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", namespace, "wait", ended, "pod/reader", "--timeout=60s")
    assert cluster.kubectl("-n", namespace, "logs", "reader") == "by the machine\n"
    cluster.kubectl("delete", "persistentvolume", namespace, "--wait=false")


def test_a_pod_knows_itself_by_its_service_account(
    node: Node, cluster: Cluster, namespace: str, tmp_path: pathlib.Path
) -> None:
    program = pathlib.Path(cluster.command()[0])
    images.load(node, images.build(tmp_path / "kubectl.tar", {"kubectl": program}, []), "kubectl:1")
    cluster.apply(pod("reader", "kubectl:1", "/kubectl", "auth", "whoami"), namespace=namespace)
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("-n", namespace, "wait", ended, "pod/reader", "--timeout=60s")
    said = f"system:serviceaccount:{namespace}:default"
    assert said in cluster.kubectl("-n", namespace, "logs", "reader")


def test_what_was_asked_of_the_api_server_is_in_the_audit_log(node: Node, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "get", "configmaps")
    asked = [json.loads(line) for line in node.audit_log.read_text().splitlines()]
    verbs = {(e["user"]["username"], e["verb"]) for e in asked if e.get("objectRef", {}).get("namespace") == namespace}
    assert ("admin", "list") in verbs
