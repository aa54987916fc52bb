"""NetworkPolicies are enforced here, so that what other tests say about them means something."""

from __future__ import annotations

from typing import Any

from tests.cluster.test_node import server
from tests.rig.cluster import Cluster
from tests.rig.node import layout
from tests.rig.node.layout import Node

DENY: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
DNS = {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]}


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def reaches(cluster: Cluster, namespace: str, source: str, url: str) -> bool:
    """Whether a new connection from the pod ``source`` gets an answer, be it an error."""
    said = cluster.kubectl(
        "-n", namespace, "exec", source, "--", "sh", "-c", f"timeout 2 wget -S -O- {url} 2>&1 || true"
    )
    return "HTTP/1." in said


def test_a_policy_that_denies_all_blocks_and_one_that_allows_a_pod_lets_it_pass(
    cluster: Cluster, namespace: str
) -> None:
    for name in ("web", "friend", "stranger"):
        server(cluster, namespace, name)

    def ask(source: str) -> bool:
        return reaches(cluster, namespace, source, "http://web")

    cluster.until("both reach it", lambda: ask("friend") and ask("stranger"))

    cluster.apply(policy("deny", DENY), namespace=namespace)
    cluster.until("nobody reaches it", lambda: not ask("friend") and not ask("stranger"))

    leave = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [DNS, {"to": [{"podSelector": {}}]}]}
    near = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["friend"]}]}
    enter = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
    allowed = {**enter, "ingress": [{"from": [{"podSelector": near}], "ports": [{"port": 8080}]}]}
    cluster.apply(policy("leave", leave), policy("enter", allowed), namespace=namespace)
    cluster.until("the friend reaches it", lambda: ask("friend"))
    assert not ask("stranger")


def test_a_policy_tells_namespaces_apart(cluster: Cluster, namespace: str) -> None:
    server(cluster, namespace, "web")
    other = f"{namespace}-other"
    cluster.kubectl("create", "namespace", other)
    try:
        cluster.until("its account is there", lambda: bool(cluster.kubectl("-n", other, "get", "sa", "-o", "name")))
        server(cluster, other, "asker")

        def ask() -> bool:
            return reaches(cluster, other, "asker", f"http://web.{namespace}")

        cluster.until("another namespace reaches it", ask)
        near = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [near]}]}
        cluster.apply(policy("own", spec), namespace=namespace)
        cluster.until("another namespace does not reach it", lambda: not ask())
        spec["ingress"] = [{"from": [{**near, "namespaceSelector": {}}]}]
        cluster.apply(policy("own", spec), namespace=namespace)
        cluster.until("it reaches it again", ask)
    finally:
        cluster.kubectl("delete", "namespace", other, "--wait=false")


def test_a_policy_keeps_a_pod_from_the_node(cluster: Cluster, node: Node, namespace: str) -> None:
    server(cluster, namespace, "asker")

    def ask() -> bool:
        return reaches(cluster, namespace, "asker", f"http://{node.address}:{layout.API_PORT}")

    assert ask()
    cluster.apply(policy("deny", DENY), namespace=namespace)
    cluster.until("the node is out of reach", lambda: not ask())
    block = {"cidr": "0.0.0.0/0", "except": [layout.PODS]}
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": block}]}]}
    cluster.apply(policy("outside", spec), namespace=namespace)
    cluster.until("the node is in reach", ask)
