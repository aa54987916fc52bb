from typing import Any

from tests.rig.node.policies import rules

NAMESPACES = [{"metadata": {"name": name, "labels": {"team": name}}} for name in ("red", "blue")]


def pod(namespace: str, name: str, address: str, **status: Any) -> dict[str, Any]:
    port = {"name": "http", "containerPort": 8080}
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"containers": [{"ports": [port]}]},
        "status": {"phase": "Running", "podIP": address, **status},
    }


def policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "red", "name": "one"}, "spec": {"podSelector": {}, **spec}}


PODS = [pod("red", "web", "10.88.0.2"), pod("blue", "asker", "10.88.0.3"), pod("red", "done", "", phase="Succeeded")]


def written(*policies: dict[str, Any]) -> list[str]:
    text = rules(PODS, NAMESPACES, policies)
    assert text.startswith("*mangle\n:POLICIES - [0:0]\n")
    assert text.endswith("COMMIT\n")
    return [line for line in text.splitlines() if line.startswith("-A")][1:]


def test_without_a_policy_nothing_is_looked_at() -> None:
    assert written() == []


def test_an_isolated_pod_is_reached_by_nobody_but_itself() -> None:
    assert written(policy(policyTypes=["Ingress"])) == [
        "-A POLICIES -d 10.88.0.2 -j I-10.88.0.2",
        "-A I-10.88.0.2 -s 10.88.0.2 -j RETURN",
        "-A I-10.88.0.2 -j DROP",
    ]


def test_a_named_port_is_that_of_the_pod_which_is_reached() -> None:
    near = {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["blue"]}]}}
    enter = [{"from": [near], "ports": [{"port": "http"}, {"port": "absent"}]}]
    assert written(policy(policyTypes=["Ingress"], ingress=enter))[2:] == [
        "-A I-10.88.0.2 -s 10.88.0.3 -p tcp --dport 8080 -j RETURN",
        "-A I-10.88.0.2 -j DROP",
    ]


def test_a_block_of_addresses_is_taken_without_its_exceptions() -> None:
    block = {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}
    leave = [{"to": [{"ipBlock": block}], "ports": [{"protocol": "UDP", "port": 53, "endPort": 54}]}]
    lines = written(policy(policyTypes=["Egress"], egress=leave))
    assert lines[0] == "-A POLICIES -s 10.88.0.2 -j E-10.88.0.2"
    assert sorted(lines[2:-1]) == [
        "-A E-10.88.0.2 -d 10.0.0.0/32 -p udp --dport 53:54 -j RETURN",
        "-A E-10.88.0.2 -d 10.0.0.2/31 -p udp --dport 53:54 -j RETURN",
    ]


def test_a_rule_without_peers_and_ports_lets_everything_pass() -> None:
    assert written(policy(policyTypes=["Egress"], egress=[{}]))[2:] == [
        "-A E-10.88.0.2 -j RETURN",
        "-A E-10.88.0.2 -j DROP",
    ]
