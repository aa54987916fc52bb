"""Enforces NetworkPolicies on a node: one that a CNI ignores proves nothing when a test passes.

A program of the node: ``python policies.py URL TOKEN CA_FILE``. It follows pods, namespaces and policies, and writes
the whole of them as rules of iptables at once, whenever those differ. All traffic of pods is routed, so the kernel
shows it at FORWARD, and at INPUT what goes to the node itself; addresses of Services are translated by then. What the
node sends to its own pods is never refused: probes are that.

It imports nothing of this project, since it runs as a file in the node's view of the machine.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]

KINDS = {
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}
CHAIN = "POLICIES"
"""In the table ``mangle``, where nobody else has rules."""


def rules(pods: Sequence[Object], namespaces: Sequence[Object], policies: Sequence[Object]) -> str:
    """What ``iptables-restore`` takes: a chain for each direction in which a pod is isolated.

    A connection must return from the chain of its source and from that of its destination.
    """
    labels = {namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}) for namespace in namespaces}
    alive = [pod for pod in pods if _address(pod)]
    chains: dict[str, list[str]] = {}
    jumps = []
    for pod in sorted(alive, key=_address):
        own = _address(pod)
        applied = [policy for policy in policies if _selects(policy, pod)]
        for direction, letter, mine, theirs in (("Egress", "E", "-s", "-d"), ("Ingress", "I", "-d", "-s")):
            isolating = [policy for policy in applied if direction in _types(policy)]
            if not isolating:
                continue
            chain = f"{letter}-{own}"
            jumps.append(f"-A {CHAIN} {mine} {own} -j {chain}")
            returns = [f"{theirs} {own}"]  # a pod reaches itself, whatever a policy says
            for policy in isolating:
                for rule in policy["spec"].get(direction.lower()) or []:
                    returns += _matches(rule, direction, theirs, pod, policy, alive, labels)
            lines = [f"-A {chain} {match} -j RETURN".replace("  ", " ") for match in dict.fromkeys(returns)]
            chains[chain] = [*lines, f"-A {chain} -j DROP"]
    lines = ["*mangle", *(f":{chain} - [0:0]" for chain in (CHAIN, *chains))]
    lines += [f"-A {CHAIN} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN", *jumps]
    return "\n".join([*lines, *(line for chain in chains.values() for line in chain), "COMMIT", ""])


def _matches(
    rule: Object, direction: str, theirs: str, pod: Object, policy: Object, pods: Sequence[Object], labels: Object
) -> Iterator[str]:
    """What one rule of a policy lets pass, as conditions of iptables."""
    peers = rule.get("to" if direction == "Egress" else "from")
    for address, peer in _peers(peers, policy["metadata"]["namespace"], pods, labels):
        for port in _ports(rule.get("ports"), peer if direction == "Egress" else pod):
            yield f"{theirs} {address} {port}".strip() if address else port


def _peers(
    peers: Sequence[Object] | None, namespace: str, pods: Sequence[Object], labels: Object
) -> Iterator[tuple[str, Object | None]]:
    """Addresses, and the pod where it is one; "" is every address."""
    if not peers:
        yield "", None
    for peer in peers or []:
        if block := peer.get("ipBlock"):
            for part in _without(block["cidr"], block.get("except", [])):
                yield part, None
            continue
        wanted = peer.get("namespaceSelector")
        for pod in pods:
            where = pod["metadata"]["namespace"]
            near = where == namespace if wanted is None else _fits(wanted, labels.get(where, {}))
            if near and _fits(peer.get("podSelector", {}), pod["metadata"].get("labels", {})):
                yield _address(pod), pod


def _without(block: str, exceptions: Sequence[str]) -> list[str]:
    """A block of addresses without some within it. The node has no IPv6."""
    if ":" in block:
        return []
    left = [ipaddress.IPv4Network(block)]
    for hole in map(ipaddress.IPv4Network, exceptions):
        left = [part for whole in left for part in (whole.address_exclude(hole) if hole.subnet_of(whole) else [whole])]
    return [str(part) for part in left]


def _ports(ports: Sequence[Object] | None, target: Object | None) -> Iterator[str]:
    """Conditions on the port of ``target``, whose names for ports count; "" is any."""
    if not ports:
        yield ""
    for entry in ports or []:
        protocol = entry.get("protocol", "TCP")
        match entry.get("port"):
            case None:
                yield f"-p {protocol.lower()}"
            case int(first):
                yield f"-p {protocol.lower()} --dport {first}:{entry.get('endPort', first)}"
            case name:
                containers = target["spec"]["containers"] if target else []
                for declared in (port for container in containers for port in container.get("ports", [])):
                    if declared.get("name") == name and declared.get("protocol", "TCP") == protocol:
                        yield f"-p {protocol.lower()} --dport {declared['containerPort']}"


def _types(policy: Object) -> Sequence[str]:
    found: Sequence[str] = policy["spec"]["policyTypes"]  # the API server fills it in
    return found


def _selects(policy: Object, pod: Object) -> bool:
    near = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return near and _fits(policy["spec"].get("podSelector", {}), pod["metadata"].get("labels", {}))


def _fits(selector: Object, labels: Mapping[str, str]) -> bool:
    def holds(key: str, operator: str, values: Sequence[str]) -> bool:
        match operator:
            case "In":
                return labels.get(key) in values
            case "Exists":
                return key in labels
            case "DoesNotExist":
                return key not in labels
            case _:
                return labels.get(key) not in values

    wanted = [(key, "In", [value]) for key, value in selector.get("matchLabels", {}).items()]
    wanted += [(e["key"], e["operator"], e.get("values", [])) for e in selector.get("matchExpressions", [])]
    return all(holds(*one) for one in wanted)


def _address(pod: Object) -> str:
    """The address of a pod that lives in a network of its own, else ""."""
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return "" if ended or pod["spec"].get("hostNetwork") else pod["status"].get("podIP", "")


class Follower(threading.Thread):
    """All objects of a kind as they are now; ``changed`` is set when they differ."""

    def __init__(self, url: str, token: str, authority: str, changed: threading.Event) -> None:
        super().__init__(daemon=True)
        self.objects: dict[str, Object] | None = None
        self._url, self._token, self._changed = url, token, changed
        self._context = ssl.create_default_context(cafile=authority)

    def run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                listed = json.load(self._get(""))
                self.objects = {item["metadata"]["uid"]: item for item in listed["items"]}
                self._changed.set()
                since = listed["metadata"]["resourceVersion"]
                for line in self._get(f"?watch=true&resourceVersion={since}&timeoutSeconds=600"):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    now = dict(self.objects)
                    now.pop(event["object"]["metadata"]["uid"], None)
                    if event["type"] != "DELETED":
                        now[event["object"]["metadata"]["uid"]] = event["object"]
                    self.objects = now
                    self._changed.set()
            except (OSError, ValueError) as error:
                print(f"{self._url}: {error}; asking again", flush=True)
                pause.wait(1)

    def _get(self, query: str) -> Any:
        request = urllib.request.Request(self._url + query, headers={"Authorization": f"Bearer {self._token}"})
        return urllib.request.urlopen(request, timeout=660, context=self._context)


def main(url: str, token_file: str, authority: str) -> None:
    """Follow and enforce, for ever."""
    changed = threading.Event()
    token = Path(token_file).read_text().strip()
    followers = {kind: Follower(url + path, token, authority, changed) for kind, path in KINDS.items()}
    for follower in followers.values():
        follower.start()
    _restore(f"*mangle\n:{CHAIN} - [0:0]\n-A FORWARD -j {CHAIN}\n-A INPUT -j {CHAIN}\nCOMMIT\n")
    written = ""
    while changed.wait():
        changed.clear()
        seen = {kind: follower.objects for kind, follower in followers.items()}
        if any(objects is None for objects in seen.values()):
            continue
        wanted = rules(**{kind: list((objects or {}).values()) for kind, objects in seen.items()})
        if wanted != written:
            # Chains of pods that are gone stay behind, empty of jumps; they go with the node.
            _restore(wanted)
            written = wanted


def _restore(lines: str) -> None:
    done = subprocess.run(["iptables-restore", "--noflush", "--wait"], input=lines, text=True)
    if done.returncode != 0:
        print(f"iptables-restore refuses:\n{lines}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
