"""What the state of a revision means, and how it changes."""

from __future__ import annotations

from collections.abc import Sequence

from operators.api.model import Model
from operators.api.plan import Observation, WorkloadObserved
from operators.api.status import RevisionStatus
from operators.planning import names, rollout

START_DEADLINE_S = 120
"""A revision that is not ready after this long is reported as failed; it is still tried."""

ALIVE = ("Serving", "Candidate", "Starting", "Failed", "Draining")
"""States of revisions that run; of those that were rolled back, the ones that have replicas left do, too."""


def become(revision: RevisionStatus, state: str, at: str, message: str, reason: str = "") -> RevisionStatus:
    """``revision`` in ``state``, since ``at`` where it was in another one."""
    since = revision.since if revision.state == state else at
    return revision.model_copy(update={"state": state, "since": since, "reason": reason, "message": message})


def told(revision: RevisionStatus, workload: WorkloadObserved | None) -> RevisionStatus:
    """``revision`` with what is wrong with its replicas now."""
    reason, message = (workload.reason, workload.message) if workload else ("", "")
    return revision.model_copy(update={"reason": reason, "message": message})


def overdue(model: Model, workload: WorkloadObserved | None) -> str:
    """What is said of a revision that is not ready for too long."""
    words = workload.message or workload.doing if workload else ""
    words = words or f"it said nothing; see `penstock logs {model.metadata.name}`"
    return f"not ready after {START_DEADLINE_S} s, and still being tried: {words}"


def is_ready(workload: WorkloadObserved | None, replicas: int) -> bool:
    """Whether all of so many replicas answer, and none of them only for a moment."""
    if workload is None or workload.recovering:
        return False
    return workload.wanted == replicas and workload.ready >= replicas


def is_drained(workload: str, seen: Observation) -> bool:
    """Whether the router itself reports neither traffic nor a request under way there."""
    if seen.route is None:
        return False
    return all(arm.workload != workload for arm in seen.route.arms) and not seen.route.in_flight.get(workload)


def settled(model: Model, revision: RevisionStatus, seen: Observation, at: str) -> RevisionStatus:
    """``revision`` without its replicas once the router is done with it, where it only finishes what it began."""
    workload = names.workload(model.metadata.name, revision.name, revision.variant)
    if revision.state == "Draining" and is_drained(workload, seen):
        return become(revision, "Retired", at, "").model_copy(update={"replicas": None})
    if revision.state == "RolledBack" and (is_drained(workload, seen) or workload not in seen.workloads):
        return revision.model_copy(update={"replicas": None})
    return revision


def is_leaving(revision: RevisionStatus) -> bool:
    """Whether it only finishes what it began."""
    return revision.state == "Draining" or (revision.state == "RolledBack" and revision.replicas is not None)


def side(model: Model, revision: RevisionStatus, seen: Observation) -> rollout.Side:
    """What is seen of ``revision``."""
    workload = names.workload(model.metadata.name, revision.name, revision.variant)
    found = seen.workloads.get(workload, WorkloadObserved(0, 0))
    weight = None
    if seen.route is not None:
        weight = sum(arm.weight for arm in seen.route.arms if arm.workload == workload)
    return rollout.Side(
        existing=max(revision.replicas or 0, found.wanted),
        ready=found.ready,
        weight=weight,
        recovering=found.recovering,
        refused=found.refused,
        message=found.message or found.doing,
    )


def let_go(
    model: Model, revisions: Sequence[RevisionStatus], seen: Observation, at: str, wanted: str
) -> list[RevisionStatus]:
    """Attempts that are no longer wanted leave nothing behind, unless the router still reports one.

    What was rolled back is forgotten once another revision is ``wanted`` (empty: none can be told now).
    """
    kept = []
    for revision in revisions:
        workload = names.workload(model.metadata.name, revision.name, revision.variant)
        is_forgotten = revision.state == "RolledBack" and wanted
        if is_forgotten and (revision.replicas is None or is_drained(workload, seen)):
            continue
        if revision.state in ("Starting", "Failed") and (seen.route is None or is_drained(workload, seen)):
            continue
        if is_forgotten or revision.state in ("Starting", "Failed", "Candidate"):
            revision = become(revision, "Draining", at, "")
        kept.append(revision)
    return kept
