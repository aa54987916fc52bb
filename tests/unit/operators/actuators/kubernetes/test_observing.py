from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import observing
from operators.actuators.kubernetes.carriers import deployment as carrier
from operators.api import routes
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
    assert carrier.observe(live, [], pods) == expected


def test_replicas_that_serve_another_variant_are_counted() -> None:
    def serving(words: str) -> dict[str, Any]:
        found = pod({"terminated": {"exitCode": 0, "message": words}})
        found["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        return found

    other, own = serving('{"digest": "sha256:b", "variant": "fp32"}'), serving('{"digest": "sha256:a"}')
    live = deployment(4, readyReplicas=4)
    assert carrier.observe(live, [], [other, own, other, serving("")]) == WorkloadObserved(4, 4, otherwise=2)


def test_replicas_that_had_ended_are_recovering_until_they_have_answered_for_a_while() -> None:
    crashed = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"name": "engine", "restartCount": 1}]}}
    just_ready = deployment(readyReplicas=1, unavailableReplicas=1)
    assert carrier.observe(just_ready, [], [COPYING]) == WorkloadObserved(1, 1, doing=DOING)
    crashed["status"]["conditions"] = [{"type": "Ready", "status": "True"}]  # type: ignore[index]
    assert carrier.observe(just_ready, [], [crashed]) == WorkloadObserved(1, 1, 1, recovering=True)
    assert carrier.observe(deployment(readyReplicas=1, availableReplicas=1), [], [crashed]) == WorkloadObserved(1, 1, 1)


@pytest.mark.parametrize(("ended", "told"), [(0, 0), (9, 9), (10, 10), (19, 10), (20, 20), (99, 50), (1234, 1000)])
def test_restarts_are_told_in_ever_larger_steps(ended: int, told: int) -> None:
    assert carrier.observe(deployment(), [], [pod({}, restarts=ended)]).restarts == told


OLD, NEW = (Arm(f"digits-{name}-a", name, "a", 10_000) for name in ("old", "new"))
MOVED, NOT_MOVED = RouteObserved((NEW,), {"digits-new-a": 0}), RouteObserved((OLD,), {"digits-old-a": 0})
MOVING = RouteObserved((NEW,), {"digits-new-a": 0, "digits-old-a": 1})


def router(name: str, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": name, "uid": f"uid of {name}", **metadata},
        "status": {"phase": "Running", "conditions": conditions},
    }


def ended(name: str) -> dict[str, Any]:
    return router(name, ready=False) | {"status": {"phase": "Failed"}}


def says(name: str, seen: RouteObserved | None) -> dict[str, Any]:
    return routes.report("system", name, f"uid of {name}", {} if seen is None else {("ns", "digits"): seen})


STARTING = router("b", ready=False)
TERMINATING = router("b", ready=False, deletionTimestamp="2026-01-01T00:00:00Z")
BOTH = tuple(Arm(arm.workload, arm.revision, arm.variant, 5_000) for arm in (NEW, OLD))


@pytest.mark.parametrize(
    ("pods", "reports", "expected"),
    [
        ([], [], None),
        ([router("a")], [], None),
        ([router("a")], [says("a", None)], None),
        ([router("a")], [says("a", MOVED)], MOVED),
        ([router("a"), router("b")], [says("a", MOVED), says("b", MOVED)], MOVED),
        (
            [router("a"), router("b")],
            [says("a", MOVED), says("b", NOT_MOVED)],
            RouteObserved(BOTH, {"digits-new-a": 0, "digits-old-a": 0}),
        ),
        ([router("a"), router("b")], [says("a", MOVED), says("b", MOVING)], MOVING),
        (
            [router("a"), router("b")],
            [says("a", MOVED), says("b", None)],
            RouteObserved((Arm("digits-new-a", "new", "a", 0),), {"digits-new-a": 0}),
        ),
        ([router("a"), router("b")], [says("a", MOVED)], None),
        ([router("a"), STARTING], [says("a", MOVED)], MOVED),
        ([router("a"), STARTING], [says("a", MOVED), says("b", MOVING)], MOVING),
        ([router("a"), TERMINATING], [says("a", MOVED), says("b", MOVING)], MOVING),
        ([router("a"), TERMINATING], [says("a", MOVED)], MOVED),
        ([router("a"), ended("b")], [says("a", MOVED), says("b", NOT_MOVED)], MOVED),
        ([router("a")], [says("a", MOVED), says("b", NOT_MOVED)], MOVED),
        ([STARTING], [], None),
    ],
    ids=[
        "no router",
        "ready and silent",
        "Model unknown",
        "one has moved",
        "both have moved",
        "one has not moved",
        "one still answers requests",
        "one does not know the Model",
        "one is ready and silent",
        "one is starting",
        "one is not ready and was",
        "one is terminating",
        "one is terminating and never began",
        "one has ended",
        "one is gone, its report not yet",
        "only one, starting",
    ],
)
def test_a_route_has_moved_when_every_router_that_may_carry_traffic_says_so(
    pods: list[dict[str, Any]], reports: list[dict[str, Any]], expected: RouteObserved | None
) -> None:
    assert observing.route("ns", "digits", pods, reports) == expected


def test_a_report_of_a_pod_of_the_same_name_that_is_gone_is_not_taken_for_this_ones() -> None:
    assert observing.route("ns", "digits", [router("a", uid="another")], [says("a", MOVED)]) is None
