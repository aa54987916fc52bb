from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import observing
from operators.api.plan import Arm, RouteObserved, WorkloadObserved


def deployment(replicas: int = 1, **status: Any) -> dict[str, Any]:
    return {"spec": {"replicas": replicas}, "status": status}


def pod(state: dict[str, Any], restarts: int = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": "p"},
        "spec": {"initContainers": [{"name": "fetch", "image": "serve:1"}]},
        "status": {"initContainerStatuses": [{"name": "fetch", "state": state, "restartCount": restarts}]},
    }


REFUSED = pod({"terminated": {"exitCode": 3, "message": "digest is X, expected Y\n"}}, restarts=2)
COPYING = pod({"running": {}})
DOING = "pod p: container fetch copies the artifact"
WHY = "digest is X, expected Y"


@pytest.mark.parametrize(
    ("live", "pods", "expected"),
    [
        (deployment(readyReplicas=1), [COPYING], WorkloadObserved(1, 1)),
        (deployment(2, readyReplicas=1), [COPYING], WorkloadObserved(2, 1, doing=DOING)),
        (deployment(readyReplicas=1, updatedReplicas=0), [], WorkloadObserved(1, 1)),
        (deployment(), [REFUSED], WorkloadObserved(1, 0, 2, "Refused", WHY, refused=True)),
        (deployment(readyReplicas=1), [REFUSED], WorkloadObserved(1, 1, 2)),
        (
            deployment(readyReplicas=1, unavailableReplicas=1),
            [REFUSED],
            WorkloadObserved(1, 1, 2, "Refused", WHY, refused=True),
        ),
    ],
    ids=["ready", "one of two", "old template", "refused", "ready all the same", "ready beside one that is not"],
)
def test_a_deployment_and_its_pods_are_read(
    live: dict[str, Any], pods: list[dict[str, Any]], expected: WorkloadObserved
) -> None:
    assert observing.workload(live, pods) == expected


def test_replicas_that_had_ended_are_recovering_until_they_have_answered_for_a_while() -> None:
    crashed = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "engine", "restartCount": 1}]}}
    just_ready = deployment(readyReplicas=1, unavailableReplicas=1)
    assert observing.workload(just_ready, [COPYING]) == WorkloadObserved(1, 1, doing=DOING)
    crashed["status"]["conditions"] = [{"type": "Ready", "status": "True"}]  # type: ignore[index]
    assert observing.workload(just_ready, [crashed]) == WorkloadObserved(1, 1, 1, recovering=True)
    assert observing.workload(deployment(readyReplicas=1, availableReplicas=1), [crashed]) == WorkloadObserved(1, 1, 1)


@pytest.mark.parametrize(("ended", "told"), [(0, 0), (9, 9), (10, 10), (19, 10), (20, 20), (99, 50), (1234, 1000)])
def test_restarts_are_told_in_ever_larger_steps(ended: int, told: int) -> None:
    assert observing.workload(deployment(), [pod({}, restarts=ended)]).restarts == told


def test_what_the_router_reports_is_read_back_as_it_was_written() -> None:
    seen = RouteObserved((Arm("digits-1-a", "1", "a", 10000),), {"digits-0-a": 2})
    config_map = {"metadata": {"annotations": {observing.OBSERVED: observing.report(seen)}}}
    assert observing.route(config_map) == seen


def test_a_router_that_has_said_nothing_is_not_taken_for_one_without_traffic() -> None:
    assert observing.route(None) is None
    assert observing.route({"metadata": {}}) is None
