"""Replicas as pods of a Deployment, which every cluster knows."""

from __future__ import annotations

from collections.abc import Sequence

from operators.actuators.kubernetes import diagnosis, makers, observing
from operators.actuators.kubernetes.carriers.base import Carrier, Object
from operators.actuators.kubernetes.resources import DEPLOYMENTS
from operators.api.plan import Workload, WorkloadObserved
from operators.api.routes import WORKLOAD_LABEL

_PROVEN_S = 10
"""How long a replica must answer to count as available: what crashes again and again may answer for a moment."""

STRATEGY: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""Only what changes in how a revision is run replaces pods within a Deployment."""


def make(workload: Workload, owner: Object, pod: Object) -> Object:
    """Replicas of one engine serving one variant of one revision."""
    spec: Object = {
        "minReadySeconds": _PROVEN_S,
        "selector": {"matchLabels": {WORKLOAD_LABEL: workload.name}},
        "strategy": STRATEGY,
        "template": {"metadata": {"labels": makers.labels(workload)}, "spec": pod},
    }
    if workload.replicas is not None:
        spec["replicas"] = workload.replicas
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": makers.metadata(workload, makers.labels(workload), owner),
        "spec": spec,
    }


def observe(live: Object, made: Sequence[Object], pods: Sequence[Object]) -> WorkloadObserved:
    """A Deployment and its pods as the planner sees them.

    Pods of every template count as ready: a Deployment is of one revision, and an older template of it differs in how
    this version of Penstock runs a revision, not in what it serves.
    """
    wanted = live.get("spec", {}).get("replicas", 1)
    return observing.workload(wanted, live.get("status", {}), pods, diagnosis.of_deployment(live))


CARRIER = Carrier(DEPLOYMENTS, make, observe)
