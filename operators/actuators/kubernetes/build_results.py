"""What the cluster says of one build, from its Job and its pods to facts; pure.

What came of it is the last word of the container that made it. As soon as that is known it is kept as an annotation of
the Job, so that a pod that is deleted does not take it along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from operators.actuators.kubernetes import diagnosis
from operators.actuators.kubernetes.build_jobs import BUILD
from operators.api.base import GROUP
from operators.api.plan import BuildObserved, BuildState
from operators.api.status import BuildReport
from serving import contract
from serving.contract import Exit

Object = dict[str, Any]

SUMMARY, REFUSAL = f"{GROUP}/build-summary", f"{GROUP}/build-refusal"
"""Annotations of a Job: what its builder told of the build, or why there is none."""
RETRY_S = 600
"""How long after it was given up a build is begun anew."""
_FILE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,100}")
_FINAL = (Exit.REFUSED, Exit.FAILED, Exit.USAGE)
"""How a builder ends that would end the same way again."""


def outcome(job: Object, pods: Sequence[Object]) -> dict[str, str]:
    """How the build ended, as the annotation that keeps it; empty while it goes on."""
    annotations = job["metadata"].get("annotations") or {}
    for name in (SUMMARY, REFUSAL):
        if name in annotations:
            return {name: annotations[name]}
    for pod in pods:
        state = _container(pod)
        for ended in (state.get("state", {}).get("terminated"), state.get("lastState", {}).get("terminated")):
            if not ended:
                continue
            said = str(ended.get("message", ""))
            if ended.get("exitCode") == Exit.OK and said:
                return {SUMMARY: said}
            # A process that was killed for want of memory says nothing of the model.
            if ended.get("exitCode") in _FINAL and ended.get("reason") != "OOMKilled":
                return {REFUSAL: diagnosis.last_words(said).removeprefix("error: ") or "the builder refuses it"}
    if (failed := _condition(job, "Failed")) and failed.get("reason") == "DeadlineExceeded":
        limit = job["spec"].get("activeDeadlineSeconds")
        return {
            REFUSAL: f"it was not done after {limit} s; ask for less, or raise builder.deadlineSeconds of Penstock's "
            f"chart and delete the Job: {_delete(job)}"
        }
    return {}


def observed(job: Object, pods: Sequence[Object], said: str) -> BuildObserved:
    """How far the build is; ``said`` is what its builder answered last, empty before it did."""
    found = outcome(job, pods)
    if SUMMARY in found:
        report = parsed(found[SUMMARY])
        if report is None:
            return BuildObserved(
                BuildState.REFUSED, f"what the builder told is not understood; to have it made again: {_delete(job)}"
            )
        return BuildObserved(BuildState.DONE, report=report)
    if REFUSAL in found:
        return BuildObserved(BuildState.REFUSED, found[REFUSAL])
    if given_up(job, pods):
        why = (_condition(job, "Failed") or {}).get("message") or "its result went with its pod"
        return BuildObserved(BuildState.UNAVAILABLE, f"{why}; it is begun anew within {RETRY_S // 60} minutes")
    if any("running" in _container(pod).get("state", {}) for pod in pods):
        return BuildObserved(BuildState.RUNNING, said or "begun")
    if (cause := diagnosis.of_pods(pods)) is not None:
        return BuildObserved(BuildState.UNAVAILABLE, cause.message)
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    waiting = f"its pod is not there yet; `kubectl -n {namespace} describe job {name}` says why"
    return BuildObserved(BuildState.RUNNING, diagnosis.doing(pods) or waiting)


def given_up(job: Object, pods: Sequence[Object]) -> bool:
    """Whether nothing more will come of a Job that told nothing: it failed, or its pod went with the result."""
    lost = bool(_condition(job, "Complete")) and not pods
    return not outcome(job, pods) and (lost or bool(_condition(job, "Failed")))


def image(job: Object) -> str:
    """The builder that a Job runs."""
    containers: list[Object] = job["spec"]["template"]["spec"]["containers"]
    return next((str(one["image"]) for one in containers if one["name"] == BUILD), "")


def running(pod: Object) -> str:
    """The address of a builder that works; empty of one that does not."""
    return str(pod["status"].get("podIP", "")) if "running" in _container(pod).get("state", {}) else ""


def parsed(summary: str) -> BuildReport | None:
    """The report in a summary (``serving.variants.publishing``); None where it is none."""
    try:
        said = json.loads(summary)
        store = str(said["store"])
        variants = [_placed(one, store) for one in said["variants"]]
        page = contract.stored_report(store, str(said["build"]))
        return BuildReport.model_validate({"variants": variants, "selected": said["selected"], "page": page})
    except (ValueError, KeyError, TypeError, AttributeError, pydantic.ValidationError):
        return None


def _placed(one: Mapping[str, Any], store: str) -> dict[str, Any]:
    """What was made lies where its digest says; the rest serves from where it came from."""
    file = one.get("stored")
    if file is None:
        return {**one, "uri": ""}
    if not _FILE.fullmatch(file):
        raise ValueError(f"{file!r} is no name of a file")
    return {**one, "uri": f"{contract.stored(store, one['digest'])}/{file}"}


def told(report: BuildReport) -> str:
    """A finished build in one sentence."""
    best = next((one for one in report.variants if one.name == report.selected), None)
    gain = f", {best.gain:.1f}x" if best is not None and best.gain is not None else ""
    refused = sum(not one.accepted for one in report.variants)
    others = f"; {refused} of {len(report.variants)} may not serve" if refused else ""
    return f"variant {report.selected} is selected{gain}{others}; all of it: {report.page}"


def _container(pod: Object) -> Object:
    statuses: list[Object] = pod.get("status", {}).get("containerStatuses") or []
    return next((one for one in statuses if one["name"] == BUILD), {})


def _condition(job: Object, kind: str) -> Object | None:
    conditions: list[Object] = job.get("status", {}).get("conditions") or []
    return next((c for c in conditions if (c["type"], c["status"]) == (kind, "True")), None)


def _delete(job: Object) -> str:
    return f"`kubectl -n {job['metadata']['namespace']} delete job {job['metadata']['name']}`"
