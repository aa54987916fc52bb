from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import observing
from operators.api.plan import Arm, RouteObserved, WorkloadObserved


def deployment(replicas: int = 1, **status: Any) -> dict[str, Any]:
    return {"spec": {"replicas": replicas}, "status": status}


def pod(state: dict[str, Any], init: bool = False, restarts: int = 0) -> dict[str, Any]:
    container = {"name": "fetch" if init else "engine", "state": state, "restartCount": restarts}
    return {"status": {"initContainerStatuses" if init else "containerStatuses": [container]}}


READY = {"readyReplicas": 1, "updatedReplicas": 1}
WRONG_DIGEST = {"terminated": {"exitCode": 3, "message": "digest is X, expected Y\n"}}
BACK_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}


@pytest.mark.parametrize(
    ("live", "pods", "expected"),
    [
        (deployment(**READY), [pod({"running": {}})], WorkloadObserved(1, 1)),
        (deployment(2, **READY), [], WorkloadObserved(2, 1)),
        (deployment(readyReplicas=1), [], WorkloadObserved(1, 0)),
        (deployment(), [pod(WRONG_DIGEST, init=True)], WorkloadObserved(1, 0, 0, "digest is X, expected Y", True)),
        (
            deployment(),
            [pod({"terminated": {"exitCode": 137}}, restarts=2)],
            WorkloadObserved(1, 0, 2, "engine ended with exit code 137"),
        ),
        (deployment(), [pod(BACK_OFF)], WorkloadObserved(1, 0, 0, "engine: ImagePullBackOff: no such image")),
        (
            deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]),
            [],
            WorkloadObserved(1, 0, 0, "exceeded quota"),
        ),
        (deployment(**READY), [pod(BACK_OFF)], WorkloadObserved(1, 1)),
    ],
    ids=["ready", "one of two", "old template", "refused", "killed", "no image", "quota", "ready all the same"],
)
def test_a_deployment_and_its_pods_are_read(
    live: dict[str, Any], pods: list[dict[str, Any]], expected: WorkloadObserved
) -> None:
    assert observing.workload(live, pods) == expected


def test_what_the_router_reports_is_read_back_as_it_was_written() -> None:
    seen = RouteObserved((Arm("digits-1-a", "1", "a", 10000),), {"digits-0-a": 2})
    config_map = {"metadata": {"annotations": {observing.OBSERVED: observing.report(seen)}}}
    assert observing.route(config_map) == seen


def test_a_router_that_has_said_nothing_is_not_taken_for_one_without_traffic() -> None:
    assert observing.route(None) is None
    assert observing.route({"metadata": {}}) is None
