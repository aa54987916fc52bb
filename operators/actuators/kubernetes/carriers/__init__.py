"""What carries the replicas of a workload: one kind of object each, named by ``ServingRuntime.spec.deployAs``.

Here belongs what differs between kinds: how the object looks, and what it says of its replicas. Pods have our labels
whatever made them, so Services, routes, NetworkPolicies and diagnosis are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from operators.actuators.kubernetes.carriers import deployment, inference_service, ray_service
from operators.actuators.kubernetes.carriers.base import Carrier

CARRIERS: Mapping[str, Carrier] = {
    carrier.resource.kind: carrier for carrier in (deployment.CARRIER, inference_service.CARRIER, ray_service.CARRIER)
}
