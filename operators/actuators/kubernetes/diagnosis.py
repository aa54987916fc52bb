"""Why a workload is not ready: from its pods and what makes them to one cause, in one word and one sentence; pure.

The sentence names the pod, the container, what Kubernetes says of it and the next step. It stays the same for as long
as the cause does: a container that crashes again and again passes through waiting, running and ended, back-off times
and restart counts grow, pods are listed in any order, and none of that may rewrite a status. So of every pod that is
not ready its worst cause counts, whatever phase it is in now, and of several pods the worst cause of the newest.
"""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from operators.actuators.kubernetes.build_jobs import BUILD_LABEL
from operators.actuators.kubernetes.makers import STORAGE_SECRET
from serving.contract import Exit

Object = dict[str, Any]

FETCH, ENGINE = "fetch", "engine"
"""The containers of a serving pod: the one that copies the artifact before the one that serves it."""

REASONS = (
    "Refused",
    "OutOfMemory",
    "Crashing",
    "FetchFailed",
    "ImagePullFailed",
    "ContainerNotCreated",
    "NodeLost",
    "QuotaExceeded",
    "PodsRefused",
    "NotDeployed",
    "Unschedulable",
    "Evicted",
    "PodFailed",
)
"""Every cause there is; of several, the first is told."""

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CREATE = ("CreateContainerConfigError", "CreateContainerError", "CreatePodSandboxError")
_RUN = ("RunContainerError", "StartError", "ContainerCannotRun")
_NO_KEYS = "NoCredentialsError"
"""How the client of S3 says that it was given none."""
_WORDS_LENGTH = 600
_KILLED_BY = 128


@dataclasses.dataclass(frozen=True)
class Cause:
    """What is wrong. ``reason`` is one of ``REASONS``."""

    reason: str
    message: str


def cause(pods: Sequence[Object], causes: Iterable[Cause] = ()) -> Cause | None:
    """The most telling cause for which a replica is not ready, of ``causes`` and what its pods say; None if none is."""
    found = [*causes, *filter(None, [of_pods(pods)])]
    return min(found, key=lambda each: REASONS.index(each.reason), default=None)


def of_pods(pods: Sequence[Object]) -> Cause | None:
    """The most telling cause for which none of ``pods`` gets on; None if none is known."""
    found = [c for pod in _newest_first(pods) for c in _of_pod(pod, pods)]
    return min(found, key=lambda each: REASONS.index(each.reason), default=None)


def doing(pods: Sequence[Object]) -> str:
    """What the newest pod that is not ready is about, for one of which nothing wrong is known; empty without any."""
    for pod in _newest_first(pods):
        if _is_ready(pod) or _is_over(pod):
            continue
        for container in _statuses(pod):
            state = container.get("state", {})
            if reason := state.get("waiting", {}).get("reason"):
                return f"{_name(pod)}: container {container['name']} waits: {reason}; {_ask_kubernetes(pod)}"
            if "running" in state:
                what = "copies the artifact" if container["name"] == FETCH else "runs, but is not ready"
                return f"{_name(pod)}: container {container['name']} {what}"
        return f"{_name(pod)} is not started; {_ask_kubernetes(pod)}"
    return ""


def refusal(words: str) -> Cause:
    """Why the API server refused to create something, and what to do about it."""
    # A pod's name is drawn anew for each attempt.
    said = plain(re.sub(r'^pods "[^"]*" is forbidden: ', "", words))
    if quota := re.search(r"exceeded quota: ([^,]+)", said):
        todo = f"raise ResourceQuota {quota[1]}, or lower what the namespace uses"
        return Cause("QuotaExceeded", f"{said}; {todo}")
    if quota := re.search(r"failed quota: ([^:]+): must specify ([^;]+)", said):
        todo = f"ResourceQuota {quota[1]} wants it set: set spec.resources, or give the namespace a LimitRange"
        return Cause("QuotaExceeded", f"{said}; {todo}")
    for sign, todo in (
        (r"violates PodSecurity", "the namespace's Pod Security level forbids what the ServingRuntime needs"),
        (r" per (Container|Pod) is ", "a LimitRange of the namespace bounds spec.resources; stay within it"),
        (r"(?i)admission ?(webhook|policy)", "ask who set up this policy, or change what it objects to"),
        (r"error looking up service account", "create it"),
    ):
        if re.search(sign, said):
            return Cause("PodsRefused", f"{said}; {todo}")
    return Cause("PodsRefused", said)


def of_deployment(deployment: Object) -> Iterator[Cause]:
    """Why ``deployment`` gets no pods."""
    for condition in deployment.get("status", {}).get("conditions", []):
        failed = (condition["type"], condition["status"]) == ("ReplicaFailure", "True")
        # Timing out adds nothing to what the pods say.
        stuck = (condition["type"], condition["status"]) == ("Progressing", "False")
        if failed or (stuck and condition.get("reason") != "ProgressDeadlineExceeded"):
            why = refusal(condition.get("message", ""))
            yield Cause(why.reason, f"pods cannot be created: {why.message}")


def _of_pod(pod: Object, pods: Sequence[Object]) -> Iterator[Cause]:
    if _is_ready(pod) or pod["metadata"].get("deletionTimestamp"):
        return
    if _is_over(pod):
        if not any(_is_ready(other) and _created(other) >= _created(pod) for other in pods):
            yield _ended_pod(pod)
        return
    containers = _statuses(pod)
    for container in containers:
        if not container.get("ready"):
            yield from _of_container(pod, container)
    running = pod.get("status", {}).get("containerStatuses", [])
    if running and all(c.get("ready") for c in running) and _condition(pod, "Ready").get("status") == "False":
        node = pod.get("spec", {}).get("nodeName", "")
        todo = f"it is replaced once the node is given up; `kubectl describe node {node}` says more"
        yield Cause("NodeLost", f"{_name(pod)}: node {node} no longer reports on it; {todo}")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("message"):
        noise = r"[,.]? (no new claims to deallocate, )?preemption: .*|(?<=not found)\. not found|[. ]*$"
        said = re.sub(noise, "", plain(scheduled["message"]))
        yield Cause("Unschedulable", f"{_name(pod)} fits no node: {said}; {_make_room(pod, said)}")


def _of_container(pod: Object, container: Object) -> Iterator[Cause]:
    where = f"{_name(pod)}: container {container['name']}"
    waiting = container.get("state", {}).get("waiting", {})
    reason, said = waiting.get("reason", ""), plain(waiting.get("message", ""))
    if reason in _IMAGE:
        said = re.sub(r'^Back-off pulling image "[^"]*"(: ErrImagePull: )?', "", said)
        yield Cause(
            "ImagePullFailed",
            f"{where}: image {container.get('image', '')} cannot be pulled{f': {said}' if said else ''}; correct its "
            "name, push it, or add its registry's pull secret to the namespace's default service account",
        )
    if reason in _CREATE:
        yield Cause("ContainerNotCreated", f"{where} cannot be created: {said}; create or correct what it names")
    if reason in _RUN:
        yield _cannot_run(where, said)
    init = any(each is container for each in pod["status"].get("initContainerStatuses", []))
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended = state.get("terminated")
        if ended and (ended.get("exitCode") or not init):
            yield _ended(pod, container["name"], where, ended)


def _ended(pod: Object, container: str, where: str, ended: Object) -> Cause:
    code, said = ended.get("exitCode", 0), last_words(ended.get("message", ""))
    if code == Exit.REFUSED and _is_ours(pod, container):
        return Cause("Refused", said or f"{where} refuses the artifact")
    if ended.get("reason") == "OOMKilled":
        limit = _limit(pod, container, "memory")
        if limit:
            needs = f"needs more memory than its limit of {limit} (OOMKilled); raise {_said_by(pod, 'limits.memory')}"
        else:
            needs = f"was killed for its node had no memory left (OOMKilled); set {_said_by(pod, 'requests.memory')}"
        return Cause("OutOfMemory", f"{where} {needs}")
    if ended.get("reason") in _RUN:
        return _cannot_run(where, said)
    name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace", "default")
    log = f"`kubectl -n {namespace} logs {name} -c {container} --previous` says more"
    how = f"ended with {_exit(code)}{f': {said}' if said else ''}"
    keys = f"; put the bucket's keys into Secret {STORAGE_SECRET} of namespace {namespace}" if _NO_KEYS in said else ""
    if container == FETCH:
        return Cause("FetchFailed", f"{where} {how}{keys}; it is tried again, {log}")
    return Cause("Crashing", f"{where} {how}{keys}; it is started again, {log}")


def _cannot_run(where: str, said: str) -> Cause:
    said = re.sub("^failed to create .* unable to start container process: ", "", said)
    return Cause("Crashing", f"{where} cannot be started: {said}; correct command and args of the ServingRuntime")


def _ended_pod(pod: Object) -> Cause:
    status = pod["status"]
    reason, said = status.get("reason", ""), plain(status.get("message", "")).rstrip(". ")
    if reason == "Evicted":
        todo = f"set {_said_by(pod, 'requests')} to what it needs, so that it gets a node with as much"
        return Cause("Evicted", f"{_name(pod)} was evicted: {said}; {todo}")
    told = ": ".join(part for part in (reason, said) if part) or "it has failed"
    return Cause("PodFailed", f"{_name(pod)} is over: {told}; another takes its place")


def _make_room(pod: Object, said: str) -> str:
    if "persistentvolumeclaim" in said.lower():
        return "create or bind the claim, or correct source.uri"
    if short := re.findall(r"Insufficient ([\w./-]*\w)", said):
        what = " and ".join(dict.fromkeys(short))
        return f"lower {_said_by(pod, 'requests')} ({what}), free some, or add a node that has it"
    return "free or add a node that takes it"


def _said_by(pod: Object, what: str) -> str:
    """The field that says what a pod gets of something."""
    if BUILD_LABEL in (pod["metadata"].get("labels") or {}):
        return f"builder.resources.{what} of Penstock's chart"
    return f"spec.resources.{what}"


def _exit(code: int) -> str:
    try:
        return f"exit code {code} ({signal.Signals(code - _KILLED_BY).name})"
    except ValueError:
        return f"exit code {code}"


def _limit(pod: Object, container: str, resource: str) -> str:
    spec = pod.get("spec", {})
    for each in (*spec.get("initContainers", []), *spec.get("containers", [])):
        if each["name"] == container:
            return str(each.get("resources", {}).get("limits", {}).get(resource, ""))
    return ""


def _is_ours(pod: Object, container: str) -> bool:
    """Whether exit codes mean what the contract says: an engine of somebody else's image has its own."""
    images = {c["name"]: c.get("image") for kind in ("initContainers", "containers") for c in pod["spec"].get(kind, [])}
    return images.get(container) == images.get(FETCH)


def _newest_first(pods: Sequence[Object]) -> list[Object]:
    """Pods of the newest template come first, since they were made last; their names decide the rest."""
    return sorted(sorted(pods, key=lambda p: str(p["metadata"]["name"])), key=_created, reverse=True)


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _name(pod: Object) -> str:
    return f"pod {pod['metadata']['name']}"


def _ask_kubernetes(pod: Object) -> str:
    namespace = pod["metadata"].get("namespace", "default")
    return f"`kubectl -n {namespace} describe pod {pod['metadata']['name']}` says why"


def _statuses(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _condition(pod: Object, type_: str) -> Object:
    conditions: list[Object] = pod.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def _is_ready(pod: Object) -> bool:
    return _condition(pod, "Ready").get("status") == "True"


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def last_words(text: str) -> str:
    """The last line: of a log it is the one that says why."""
    lines = [line for line in text.splitlines() if line.strip()]
    return plain(lines[-1] if lines else "")


def plain(text: str) -> str:
    """What somebody else said as one line, without what differs from one attempt to the next."""
    text = re.sub(r"rpc error: code = \w+ desc = ", "", " ".join(text.split()))
    text = re.sub(r"(\d+\.\d+\.\d+\.\d+):\d+->", r"\1->", text)
    text = re.sub(r"^\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(Z|[+-][\d:]+)?\]?\s+", "", text)
    return text if len(text) <= _WORDS_LENGTH else text[: _WORDS_LENGTH - 1] + "…"
