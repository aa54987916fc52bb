"""What the cluster says of one Model, from cached objects to facts; pure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from operators.actuators.kubernetes import diagnosis, makers
from operators.api import routes
from operators.api.model import Location
from operators.api.plan import Arm, BuildObserved, Fetch, FetchObserved, FetchState, RouteObserved, WorkloadObserved

Object = dict[str, Any]

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


def published(built: BuildObserved) -> dict[Fetch, FetchObserved]:
    """What a build has put where pods fetch it."""
    variants = built.report.variants if built.report is not None else ()
    made = {Fetch(one.uri, one.digest): one.digest for one in variants if one.accepted and one.uri}
    return {fetch: FetchObserved(FetchState.FETCHED, digest) for fetch, digest in made.items()}


def workload(
    wanted: int, status: Object, pods: Sequence[Object], causes: Iterable[diagnosis.Cause] = ()
) -> WorkloadObserved:
    """Replicas as the planner sees them, from a status as a Deployment has it, and the pods.

    ``causes`` are what is known to be wrong beside what the pods say.
    """
    ready = status.get("readyReplicas", 0)
    settled = ready >= wanted and not status.get("unavailableReplicas")
    cause = None if settled else diagnosis.cause(pods, causes)
    restarts = sum(_restarts(pod, "initContainerStatuses") for pod in pods)
    ended = sum(_restarts(pod, "containerStatuses") for pod in pods)
    return WorkloadObserved(
        wanted=wanted,
        ready=ready,
        restarts=_rounded(restarts + ended),
        reason=cause.reason if cause else "",
        message=cause.message if cause else "",
        doing="" if settled or cause else diagnosis.doing(pods),
        otherwise=sum(_took_another(pod) for pod in pods if is_ready(pod)),
        recovering=ready >= wanted > status.get("availableReplicas", 0) and ended > 0,
        refused=cause is not None and cause.reason == "Refused",
    )


def _took_another(pod: Object) -> bool:
    """Whether its fetch took the variant for processors that lack something, by its last words."""
    for container in pod.get("status", {}).get("initContainerStatuses", []):
        words = container.get("state", {}).get("terminated", {}).get("message", "")
        if container["name"] == diagnosis.FETCH and words:
            with contextlib.suppress(ValueError):
                return "variant" in json.loads(words)
    return False


def _restarts(pod: Object, kind: str) -> int:
    return sum(container.get("restartCount", 0) for container in pod.get("status", {}).get(kind, []))


def _rounded(count: int) -> int:
    """From 10 on a step of 10, 20, 50, 100 …: what crashes for weeks must not write its status for weeks."""
    if count < 10:
        return count
    power: int = 10 ** (len(str(count)) - 1)
    return power * (5 if count >= 5 * power else 2 if count >= 2 * power else 1)


def arm(carrier: Object, weights: Mapping[str, int]) -> Arm:
    """The arm that what carries a workload stands for, with its share by ``weights`` of revisions."""
    labels = carrier["metadata"]["labels"]
    revision = labels[makers.REVISION_LABEL]
    return Arm(carrier["metadata"]["name"], revision, labels[makers.VARIANT_LABEL], weights.get(revision, 0))


def route(namespace: str, name: str, pods: Sequence[Object], reports: Sequence[Object]) -> RouteObserved | None:
    """What the routers in ``pods`` do with a Model, by their ``reports``; None while that cannot be said.

    Every router that has reported counts until its containers have ended, for whether it is ready or terminating it
    may still carry traffic. One that has not is only just starting, unless it is ready: then nothing is known.
    """
    seen = []
    for pod in pods:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        report = next((each for each in reports if _owned_by(each, pod["metadata"]["uid"])), None)
        if report is not None:
            seen.append(routes.reported(report, namespace, name))
        elif is_ready(pod):
            return None
    return routes.together(seen)


def is_ready(pod: Object) -> bool:
    """Whether a pod is in the endpoints of its Services."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


def _owned_by(child: Object, uid: str) -> bool:
    return any(reference["uid"] == uid for reference in child["metadata"].get("ownerReferences", []))


def labels(name: str) -> dict[str, str]:
    """Labels that all children of a Model carry."""
    return routes.MANAGED_BY | {routes.MODEL_LABEL: name}
