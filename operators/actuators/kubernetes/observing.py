"""What the cluster says of one Model, from cached objects to facts; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from operators.actuators.kubernetes import makers
from operators.api.model import Location
from operators.api.plan import Arm, Fetch, FetchObserved, FetchState, RouteObserved, WorkloadObserved
from serving.contract import Exit

Object = dict[str, Any]

OBSERVED = "penstock.dev/observed"
"""Annotation of a route's ConfigMap in which the router reports what it does."""

FETCHABLE = ("https", "oci", "pvc", "s3")
"""What the image of the model server reads."""


def fetch(location: Location) -> tuple[Fetch, FetchObserved]:
    """In a cluster the pods fetch for themselves; the operator can only say whether they will be able to."""
    scheme = urlparse(location.uri).scheme
    wish = Fetch(location.uri, location.digest)
    if scheme not in FETCHABLE:
        known = ", ".join(f"{s}://" for s in FETCHABLE)
        if scheme in ("", "file"):
            message = (
                f"{location.uri} is on somebody's machine, where no pod can read it; "
                f"use `penstock apply`, which uploads it, or put it where {known} name it"
            )
        else:
            message = f"{location.uri}: this version fetches {known} in a cluster; put the artifact there"
        return wish, FetchObserved(FetchState.REFUSED, message=message)
    if location.digest is None:
        message = (
            f"{location.uri}: digest is not set, and replicas started at different times could serve different "
            "bytes; set digest to the `sha256:` that `penstock fetch --uri URI --to DIR` prints"
        )
        return wish, FetchObserved(FetchState.REFUSED, message=message)
    return wish, FetchObserved(FetchState.FETCHED, location.digest)


def workload(deployment: Object, pods: Sequence[Object]) -> WorkloadObserved:
    """A Deployment and its pods as the planner sees them."""
    spec, status = deployment.get("spec", {}), deployment.get("status", {})
    ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
    ends = [end for pod in pods if (end := _last_end(pod))]
    refused = next((message for code, message in ends if code == Exit.REFUSED), None)
    words = [refused] if refused else [message for _, message in ends if message]
    words += [message for pod in pods if (message := _waiting(pod))]
    words += [
        c["message"]
        for c in status.get("conditions", [])
        if (c["type"], c["status"]) in (("ReplicaFailure", "True"), ("Progressing", "False"))
    ]
    return WorkloadObserved(
        wanted=spec.get("replicas", 1),
        ready=ready,
        restarts=sum(c.get("restartCount", 0) for pod in pods for c in _containers(pod)),
        message="" if ready >= spec.get("replicas", 1) or not words else words[0],
        refused=refused is not None,
    )


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _last_end(pod: Object) -> tuple[int, str] | None:
    for container in _containers(pod):
        for state in (container.get("state", {}), container.get("lastState", {})):
            ended = state.get("terminated")
            if ended and ended.get("exitCode"):
                said = ended.get("message") or f"{container['name']} ended with exit code {ended['exitCode']}"
                return ended["exitCode"], said.strip()
    return None


def _waiting(pod: Object) -> str:
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("message"):
            return f"{container['name']}: {waiting.get('reason', 'waiting')}: {waiting['message']}"
    for condition in pod.get("status", {}).get("conditions", []):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False") and condition.get("message"):
            return str(condition["message"])
    return ""


def arm(deployment: Object, weights: Mapping[str, int]) -> Arm:
    """The arm that a Deployment stands for, with its share by ``weights`` of revisions."""
    labels = deployment["metadata"]["labels"]
    revision = labels[makers.REVISION_LABEL]
    return Arm(deployment["metadata"]["name"], revision, labels[makers.VARIANT_LABEL], weights.get(revision, 0))


def route(config_map: Object | None) -> RouteObserved | None:
    """What the router reports of a route; None until it has."""
    if config_map is None:
        return None
    report = (config_map["metadata"].get("annotations") or {}).get(OBSERVED)
    if report is None:
        return None
    seen = json.loads(report)
    return RouteObserved(tuple(Arm(**arm) for arm in seen["arms"]), seen["inFlight"])


def report(seen: RouteObserved) -> str:
    """The annotation that ``route`` reads."""
    arms = [
        {"workload": a.workload, "revision": a.revision, "variant": a.variant, "weight": a.weight} for a in seen.arms
    ]
    return json.dumps({"arms": arms, "inFlight": dict(seen.in_flight)}, sort_keys=True)


def labels(name: str) -> dict[str, str]:
    """Labels that all children of a Model carry."""
    return makers.MANAGED_BY | {makers.MODEL_LABEL: name}
