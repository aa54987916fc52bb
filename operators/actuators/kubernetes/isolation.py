"""Who reaches a Model's pods: the router and the namespaces an installation names. Not even their own namespace.

A model server asks nobody for a password: what may see a Model's answers is decided at the router, so nothing else
may reach the server. Kubelets always reach their own pods, so probes need no rule. What the pods reach is left open,
since an artifact may be anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from operators.actuators.kubernetes import build_jobs, makers
from operators.actuators.kubernetes.carriers import CARRIERS
from operators.actuators.kubernetes.resources import NETWORK_POLICIES
from operators.api import routes
from operators.api.plan import Build, Key, Workload
from operators.runtime.cache import Cache
from operators.runtime.resource import Object


def network_policy(
    key: Key, workloads: Sequence[Workload], router_namespace: str, namespaces: Sequence[str], owner: Object
) -> Object:
    """The NetworkPolicy of the Model ``key``: in from the router and from ``namespaces``, by the workloads' ports.

    What carries a workload may need more for its own pods.
    """
    ports = sorted({port for w in workloads for port in (w.runtime.ports.http, w.runtime.ports.grpc)})
    sources = [makers.pods_of(router_namespace, routes.ROUTER_LABELS), *map(makers.pods_of, namespaces)]
    labels = routes.MANAGED_BY | {routes.MODEL_LABEL: key.name}
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.kind,
        "metadata": {"name": key.name, "namespace": key.namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": sources, "ports": [{"protocol": "TCP", "port": port} for port in ports]},
                *(rule for each in workloads for rule in CARRIERS[each.runtime.deploy_as].reached(each)),
            ],
        },
    }


@dataclasses.dataclass(frozen=True)
class Isolation:
    """Who is let in, and the NetworkPolicies that are there."""

    policies: Cache
    router_namespace: str
    operator_namespace: str
    namespaces: tuple[str, ...] = ()

    def policy(self, key: Key, workloads: Sequence[Workload], owner: Object) -> Object:
        """See ``network_policy``."""
        return network_policy(key, workloads, self.router_namespace, self.namespaces, owner)

    def of_builds(self, key: Key, builds: Sequence[Build], owner: Object) -> Object:
        """See ``build_jobs.network_policy``; the operator's pods are where it elects its leader."""
        return build_jobs.network_policy(key, builds, self.operator_namespace, owner)
