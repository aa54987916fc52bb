"""Statuses as Kubernetes 1.34 writes them, and what is told of each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from operators.actuators.kubernetes import diagnosis
from operators.actuators.kubernetes.carriers import deployment as carrier
from operators.actuators.kubernetes.diagnosis import Cause

Object = dict[str, Any]

SERVE = "penstock-serve:0.1.0"
PULL_FAILED = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/nope:1": failed to resolve '
    'reference "docker.io/library/nope:1": docker.io/library/nope:1: not found'
)
NO_PROGRAM = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: exec: "/bin/nope": stat /bin/nope: no such file or directory: unknown'
)
PULLED_NOT = (
    "pod digits-1a2b-default-5d9f-x7k2p: container engine: image nope:1 cannot be pulled: failed to pull and unpack "
    'image "docker.io/library/nope:1": failed to resolve reference "docker.io/library/nope:1": '
    "docker.io/library/nope:1: not found; correct its name, push it, or add its registry's pull secret to the "
    "namespace's default service account"
)
BACK_OFF = {
    "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=engine pod=…"}
}
FETCHED = {"name": "fetch", "ready": True, "image": SERVE, "state": {"terminated": {"exitCode": 0}}, "restartCount": 0}


def pod(
    engine: Object | None = None,
    fetch: Object | None = None,
    *,
    name: str = "digits-1a2b-default-5d9f-x7k2p",
    created: str = "2026-01-01T00:00:00Z",
    ready: bool = False,
    image: str = SERVE,
    limits: Object | None = None,
    **status: Any,
) -> Object:
    """A serving pod; ``engine`` and ``fetch`` are what differs in the status of these containers."""
    containers = [{"name": "engine", "ready": ready, "image": image, "restartCount": 0, "state": {}, **(engine or {})}]
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    spec = {"resources": {"limits": limits or {}}}
    return {
        "metadata": {"name": name, "namespace": "blue", "creationTimestamp": created},
        "spec": {
            "nodeName": "node1",
            "initContainers": [{"name": "fetch", "image": SERVE, **spec}],
            "containers": [{"name": "engine", "image": image, **spec}],
        },
        "status": {
            "phase": "Pending",
            "conditions": conditions,
            "initContainerStatuses": [{**FETCHED, **(fetch or {})}],
            "containerStatuses": containers,
            **status,
        },
    }


def ended(code: int, reason: str = "Error", message: str = "") -> Object:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def unschedulable(message: str) -> Object:
    found = pod()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found["status"] = {"phase": "Pending", "conditions": [condition]}
    return found


def deployment(*conditions: Object, replicas: int = 1, **status: Any) -> Object:
    return {"spec": {"replicas": replicas}, "status": {"conditions": list(conditions), **status}}


def cause(live: Object, pods: Sequence[Object]) -> Cause | None:
    return diagnosis.cause(pods, diagnosis.of_deployment(live))


def replica_failure(message: str) -> Object:
    return deployment({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message})


LOGS = "`kubectl -n blue logs digits-1a2b-default-5d9f-x7k2p -c {} --previous` says more"
POD = "pod digits-1a2b-default-5d9f-x7k2p"

CASES: dict[str, tuple[Object, Cause | None]] = {
    "nothing wrong": (pod({"state": {"running": {}}}), None),
    "still fetching": (
        pod({"state": {"waiting": {"reason": "PodInitializing"}}}, {"ready": False, "state": {"running": {}}}),
        None,
    ),
    "image not found": (
        pod({"image": "nope:1", "state": {"waiting": {"reason": "ErrImagePull", "message": PULL_FAILED}}}),
        Cause("ImagePullFailed", PULLED_NOT),
    ),
    "image not found, backing off": (
        pod(
            {
                "image": "nope:1",
                "state": {
                    "waiting": {
                        "reason": "ImagePullBackOff",
                        "message": f'Back-off pulling image "nope:1": ErrImagePull: {PULL_FAILED}',
                    }
                },
            }
        ),
        Cause("ImagePullFailed", PULLED_NOT),
    ),
    "image name invalid": (
        pod(
            {
                "image": "NOPE!",
                "state": {
                    "waiting": {
                        "reason": "InvalidImageName",
                        "message": 'Failed to apply default image tag "NOPE!": cannot parse image name "NOPE!": '
                        "invalid reference format",
                    }
                },
            }
        ),
        Cause(
            "ImagePullFailed",
            f'{POD}: container engine: image NOPE! cannot be pulled: Failed to apply default image tag "NOPE!": '
            'cannot parse image name "NOPE!": invalid reference format; correct its name, push it, or add its '
            "registry's pull secret to the namespace's default service account",
        ),
    ),
    "crash loop with last words": (
        pod({"state": BACK_OFF, "lastState": ended(1, message="Traceback…\nValueError: no such flag\n")}),
        Cause(
            "Crashing",
            f"{POD}: container engine ended with exit code 1: ValueError: no such flag; it is started again, "
            + LOGS.format("engine"),
        ),
    ),
    "ended by a signal": (
        pod({"state": ended(139)}),
        Cause(
            "Crashing",
            f"{POD}: container engine ended with exit code 139 (SIGSEGV); it is started again, "
            + LOGS.format("engine"),
        ),
    ),
    "a server that ends well is none": (
        pod({"state": BACK_OFF, "lastState": ended(0, "Completed")}),
        Cause(
            "Crashing",
            f"{POD}: container engine ended with exit code 0; it is started again, " + LOGS.format("engine"),
        ),
    ),
    "command not found": (
        pod({"state": BACK_OFF, "lastState": ended(128, "StartError", NO_PROGRAM)}),
        Cause(
            "Crashing",
            f'{POD}: container engine cannot be started: exec: "/bin/nope": stat /bin/nope: no such file or directory: '
            "unknown; correct command and args of the ServingRuntime",
        ),
    ),
    "out of memory": (
        pod({"state": BACK_OFF, "lastState": ended(137, "OOMKilled")}, limits={"memory": "64Mi"}),
        Cause(
            "OutOfMemory",
            f"{POD}: container engine needs more memory than its limit of 64Mi (OOMKilled); raise "
            "spec.resources.limits.memory",
        ),
    ),
    "out of memory without a limit": (
        pod({"state": ended(137, "OOMKilled")}),
        Cause(
            "OutOfMemory",
            f"{POD}: container engine was killed for its node had no memory left (OOMKilled); set "
            "spec.resources.requests.memory",
        ),
    ),
    "storage does not answer": (
        pod(
            {"state": {"waiting": {"reason": "PodInitializing"}}},
            {"ready": False, "state": BACK_OFF, "lastState": ended(5, message="s3://m/a.onnx: connection refused")},
        ),
        Cause(
            "FetchFailed",
            f"{POD}: container fetch ended with exit code 5: s3://m/a.onnx: connection refused; it is tried again, "
            + LOGS.format("fetch"),
        ),
    ),
    "no keys": (
        pod(
            {"state": {"waiting": {"reason": "PodInitializing"}}},
            {
                "ready": False,
                "state": BACK_OFF,
                "lastState": ended(5, message="s3://m/a.onnx: NoCredentialsError: none"),
            },
        ),
        Cause(
            "FetchFailed",
            f"{POD}: container fetch ended with exit code 5: s3://m/a.onnx: NoCredentialsError: none; put the bucket's "
            "keys into Secret penstock-storage of namespace blue; it is tried again, " + LOGS.format("fetch"),
        ),
    ),
    "wrong digest": (
        pod(fetch={"ready": False, "state": ended(3, message="digest is X, expected Y\n")}),
        Cause("Refused", "digest is X, expected Y"),
    ),
    "refused by our engine": (pod({"state": ended(3, message="no ONNX")}), Cause("Refused", "no ONNX")),
    "exit code 3 of an engine that is not ours": (
        pod({"state": ended(3, message="bye")}, image="triton:1"),
        Cause(
            "Crashing",
            f"{POD}: container engine ended with exit code 3: bye; it is started again, " + LOGS.format("engine"),
        ),
    ),
    "secret missing": (
        pod({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "token" not found'}}}),
        Cause(
            "ContainerNotCreated",
            f'{POD}: container engine cannot be created: secret "token" not found; create or correct what it names',
        ),
    ),
    "no node with enough CPU": (
        unschedulable(
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are "
            "available: 1 Preemption is not helpful for scheduling."
        ),
        Cause(
            "Unschedulable",
            f"{POD} fits no node: 0/1 nodes are available: 1 Insufficient cpu; lower spec.resources.requests (cpu), "
            "free some, or add a node that has it",
        ),
    ),
    "no node with enough of anything": (
        unschedulable("0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 2 Insufficient memory."),
        Cause(
            "Unschedulable",
            f"{POD} fits no node: 0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 2 Insufficient memory; lower "
            "spec.resources.requests (nvidia.com/gpu and memory), free some, or add a node that has it",
        ),
    ),
    "no such claim": (
        unschedulable('0/1 nodes are available: persistentvolumeclaim "store" not found. not found'),
        Cause(
            "Unschedulable",
            f'{POD} fits no node: 0/1 nodes are available: persistentvolumeclaim "store" not found; create or bind the '
            "claim, or correct source.uri",
        ),
    ),
    "claim not bound": (
        unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 …"),
        Cause(
            "Unschedulable",
            f"{POD} fits no node: 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims; create or "
            "bind the claim, or correct source.uri",
        ),
    ),
    "node under pressure": (
        unschedulable(
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/memory-pressure: }."
        ),
        Cause(
            "Unschedulable",
            f"{POD} fits no node: 0/1 nodes are available: 1 node(s) had untolerated taint "
            "{node.kubernetes.io/memory-pressure: }; free or add a node that takes it",
        ),
    ),
    "evicted": (
        pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory. "),
        Cause(
            "Evicted",
            f"{POD} was evicted: The node was low on resource: memory; set spec.resources.requests to what it "
            f"needs, so "
            "that it gets a node with as much",
        ),
    ),
    "not admitted by the node": (
        pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: Node didn't have enough resource: cpu"),
        Cause(
            "PodFailed",
            f"{POD} is over: OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu; another takes "
            f"its place",
        ),
    ),
    "node lost": (
        pod({"ready": True, "state": {"running": {}}}, phase="Running"),
        Cause(
            "NodeLost",
            f"{POD}: node node1 no longer reports on it; it is replaced once the node is given up; "
            "`kubectl describe node node1` says more",
        ),
    ),
}

REFUSALS = {
    "quota": (
        'pods "digits-1a2b-default-5d9f-8xkzp" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, '
        "limited: pods=2",
        "QuotaExceeded",
        "exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2; raise ResourceQuota small, or lower "
        "what the namespace uses",
    ),
    "quota that wants limits": (
        'pods "d-8xkzp" is forbidden: failed quota: compute: must specify limits.memory for: engine,fetch',
        "QuotaExceeded",
        "failed quota: compute: must specify limits.memory for: engine,fetch; ResourceQuota compute wants it set: set "
        "spec.resources, or give the namespace a LimitRange",
    ),
    "limit range": (
        'pods "d-8xkzp" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
        "PodsRefused",
        "maximum memory usage per Container is 1Gi, but limit is 2Gi; a LimitRange of the namespace bounds "
        "spec.resources; stay within it",
    ),
    "pod security": (
        'pods "d-8xkzp" is forbidden: violates PodSecurity "restricted:latest": seccompProfile (…)',
        "PodsRefused",
        'violates PodSecurity "restricted:latest": seccompProfile (…); the namespace\'s Pod Security level '
        "forbids what "
        "the ServingRuntime needs",
    ),
    "webhook": (
        'admission webhook "images.example.com" denied the request: not signed',
        "PodsRefused",
        'admission webhook "images.example.com" denied the request: not signed; ask who set up this policy, or change '
        "what it objects to",
    ),
    "policy": (
        "pods \"d-8xkzp\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
        "PodsRefused",
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no; ask who set up this policy, or change what "
        "it objects to",
    ),
    "service account": (
        'pods "d-8xkzp" is forbidden: error looking up service account blue/default: serviceaccount "default" '
        "not found",
        "PodsRefused",
        'error looking up service account blue/default: serviceaccount "default" not found; create it',
    ),
    "anything else": ("the moon is full", "PodsRefused", "the moon is full"),
}


@pytest.mark.parametrize(("found", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_with_a_pod_names_the_pod_the_cause_and_what_to_do(found: Object, expected: Cause | None) -> None:
    assert cause(deployment(), [found]) == expected


@pytest.mark.parametrize(("words", "reason", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_pods_that_the_api_server_refuses_are_told_without_the_name_drawn_for_the_attempt(
    words: str, reason: str, message: str
) -> None:
    assert cause(replica_failure(words), []) == Cause(reason, f"pods cannot be created: {message}")


def test_an_object_of_ours_that_quota_refuses_is_told_with_what_to_do() -> None:
    words = 'deployments.apps "d" is forbidden: exceeded quota: q, requested: …'
    todo = "raise ResourceQuota q, or lower what the namespace uses"
    assert diagnosis.refusal(words) == Cause("QuotaExceeded", f"{words}; {todo}")


def test_a_rollout_that_timed_out_says_nothing_its_pods_do_not() -> None:
    timed_out = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    refused = {"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "exceeded"}
    assert cause(deployment(timed_out), []) is None
    assert cause(deployment(refused), []) == Cause("PodsRefused", "pods cannot be created: exceeded")


CRASH_LOOP: list[Object] = [
    {"state": {"running": {}}},
    {"state": ended(1, message="no"), "restartCount": 0},
    *(
        {"state": state, "lastState": ended(1, message="no"), "restartCount": restarts}
        for restarts in range(1, 400)
        for state in (
            {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {10 * restarts}s restarting failed …"}},
            {"running": {"startedAt": f"2026-01-01T00:00:{restarts % 60:02}Z"}},
            ended(1, message="no"),
        )
    ),
]


def test_a_crash_loop_of_a_day_is_a_handful_of_different_observations() -> None:
    seen = [carrier.observe(deployment(unavailableReplicas=1), [], [pod(phase)]) for phase in CRASH_LOOP]
    told = [key for key, _ in itertools.groupby(seen)]
    assert len(seen) == 1199
    assert [each.restarts for each in told] == [0, 0, *range(1, 10), 10, 20, 50, 100, 200]
    assert {each.message for each in told[1:]} == {told[-1].message}


def test_an_image_that_is_pulled_again_and_again_is_told_once() -> None:
    waiting = [
        {"reason": "ErrImagePull", "message": PULL_FAILED},
        {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "nope:1": ErrImagePull: {PULL_FAILED}'},
    ] * 50
    told = {
        carrier.observe(deployment(), [], [pod({"image": "nope:1", "state": {"waiting": each}})]) for each in waiting
    }
    assert [each.message for each in told] == [PULLED_NOT]


def test_quota_that_refuses_again_and_again_is_told_once() -> None:
    words = 'pods "digits-1a2b-default-5d9f-{}" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1'
    told = {carrier.observe(replica_failure(words.format(name)), [], []) for name in ("8xkzp", "b2c4d", "zzzzz")}
    assert len(told) == 1


def test_an_address_that_differs_with_every_attempt_is_left_out() -> None:
    words = "dial tcp: lookup r.example.com: read udp 10.88.0.5:{}->10.96.0.10:53: i/o timeout"
    waiting = [{"waiting": {"reason": "ErrImagePull", "message": words.format(port)}} for port in (43523, 60001)]
    assert len({cause(deployment(), [pod({"state": each})]) for each in waiting}) == 1


def test_of_many_pods_the_worst_cause_of_the_newest_is_told_in_whatever_order_they_come() -> None:
    crashed = {"state": BACK_OFF, "lastState": ended(1)}
    pods = [
        pod(crashed, name="old-a"),
        pod(crashed, name="new-b", created="2026-01-02T00:00:00Z"),
        pod(crashed, name="new-a", created="2026-01-02T00:00:00Z"),
        pod({"state": {"waiting": {"reason": "ErrImagePull"}}}, name="newest", created="2026-01-03T00:00:00Z"),
    ]
    told = {cause(deployment(), order) for order in itertools.permutations(pods)}
    log = "`kubectl -n blue logs new-a -c engine --previous` says more"
    message = f"pod new-a: container engine ended with exit code 1; it is started again, {log}"
    assert told == {Cause("Crashing", message)}


def test_pods_that_answer_and_pods_that_are_going_say_nothing() -> None:
    going = pod({"state": ended(137)})
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    recovered = pod({"ready": True, "state": {"running": {}}, "lastState": ended(1)}, ready=True)
    assert cause(deployment(), [going, recovered]) is None


def test_an_evicted_pod_is_forgotten_once_another_has_taken_its_place() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="low on memory")
    replaced = pod({"ready": True}, name="next", created="2026-01-02T00:00:00Z", ready=True)
    starting = pod(name="third", created="2026-01-03T00:00:00Z")
    assert cause(deployment(replicas=2), [evicted, replaced, starting]) is None
    told = cause(deployment(replicas=2), [evicted, starting])
    assert told is not None
    assert told.reason == "Evicted"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod({"state": {"running": {}}}), f"{POD}: container engine runs, but is not ready"),
        (
            pod(fetch={"ready": False, "state": {"running": {}}}),
            f"{POD}: container fetch copies the artifact",
        ),
        (
            pod(fetch={"ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}),
            f"{POD}: container fetch waits: PodInitializing; `kubectl -n blue describe pod "
            "digits-1a2b-default-5d9f-x7k2p` says why",
        ),
        (
            pod(initContainerStatuses=[], containerStatuses=[]),
            f"{POD} is not started; `kubectl -n blue describe pod digits-1a2b-default-5d9f-x7k2p` says why",
        ),
        (pod(ready=True), ""),
    ],
    ids=["running", "fetching", "mounting", "no status", "ready"],
)
def test_a_pod_that_only_takes_long_is_told_with_what_it_is_about(found: Object, expected: str) -> None:
    assert diagnosis.doing([found]) == expected


def test_reading_changes_nothing() -> None:
    for found, _ in CASES.values():
        before = copy.deepcopy(found)
        cause(deployment(), [found])
        assert found == before
