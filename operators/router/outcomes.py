r"""Which unit an answer belongs to, and where reports of what came of it go: the rules of HAProxy.

Answers of an Endpoint with an experiment carry ``penstock-request-id: ARM.SHARE.EXPERIMENT.UNIT``: the arm, the share
in 0.01 % that it had at that moment, and what is counted once. That is a number drawn for the request, or for a client
that keeps its arm a hash of what it always sends. ``/v2/models/NAME/reward`` goes to the agent beside HAProxy
(``collecting``), whatever NAME is, with its key and, for a client that keeps its arm, with the id that its requests
get. Both stand in headers that are written or removed here, so a client cannot say them, and the socket is open to
HAProxy alone.

Answers of a Model of which users tell carry ``WORKLOAD.UNIT``: which revision of which Model gave it, and a number
drawn for the request. ``/v2/models/NAME/feedback`` goes the same way; an answer that came through an Endpoint may be
reported by its name, too. There an experiment's id goes before, since an answer has one.

    outcomes.map  ns/name/i -> ARM.SHARE.EXPERIMENT of share i, where units are assigned
"""

from __future__ import annotations

from collections.abc import Iterator

from operators.router import counting
from operators.router.table import Table
from serving import contract

MAP = "outcomes.map"
SOCKET = "outcomes.sock"
"""In the router's folder, where the agent listens."""
BACKEND = "outcomes"
OF_HEADER = "penstock-outcome-of"
"""What the agent is told: NAMESPACE/NAME of whoever was asked."""
REWARD, FEEDBACK = "reward", "feedback"
NAMED = "id"
"""In ``counted.map``: of a Model whose answers name a unit."""
_AT_ONCE = 16


def maps(table: Table) -> dict[str, dict[str, str]]:
    """Content of the map named above."""
    found = {}
    for key, split in table.endpoints.items():
        if split.outcomes is not None and split.outcomes.assigns:
            for i, (arm, (_, weight)) in enumerate(zip(split.outcomes.arms, split.shares, strict=True)):
                found[f"{key}/{i}"] = f"{arm}.{weight}.{split.outcomes.experiment}"
    return {MAP: found}


def share_rules(table: Table, drawn: str) -> Iterator[str]:
    """Of one share, if the condition ``drawn`` holds: whom the unit is assigned to."""
    if _assigns(table):
        yield f"http-request set-var(txn.assigned) var(txn.share),map({MAP}) if {drawn}"


def rules(table: Table) -> Iterator[str]:
    """Once an Endpoint's share is drawn: the answer's id, or that this is a report."""
    if _assigns(table):
        unit = "{ var(txn.unit) -m found }"
        yield "acl assigned var(txn.assigned) -m found"
        yield f"http-request set-var-fmt(txn.id) %[var(txn.assigned)].%[var(txn.unit),xxh64(0)] if assigned {unit}"
        yield f"http-request set-var-fmt(txn.id) %[var(txn.assigned)].%[uuid()] if assigned !{unit}"
    if _assigns(table) or _names(table):
        yield (
            f"http-after-response set-header {contract.REQUEST_ID_HEADER} %[var(txn.id)]"
            " if { var(txn.id) -m found } !{ var(txn.report) -m found }"
        )
    # The last part of a longer path, for a Model may have such a name.
    named = f"{{ path_end /{REWARD} /{FEEDBACK} }} {{ path,field(5,/) -m str {REWARD} {FEEDBACK} }}"
    is_report = f"{named} {{ path_beg /v2/models/ }}"
    yield f"http-request set-var(txn.report) bool(true) if {is_report}"
    yield "acl report var(txn.report) -m found"
    # No Model is asked.
    yield "http-request unset-var(txn.route) if report"
    yield "http-request allow if report"


def named(table: Table) -> Iterator[str]:
    """Once it is known whether a request is counted for an arm: its answer's id, if it has none."""
    if _names(table):
        # An arm that is just being taken out has no name any more.
        known = f"{{ var(txn.arm) -m found }} {{ var(txn.key),map({counting.MAP}) -m str {NAMED} }}"
        yield (
            "http-request set-var-fmt(txn.id) %[var(txn.arm),field(1,/)].%[uuid()]"
            f" if counted {known} !{{ var(txn.id) -m found }}"
        )


WAY = f"use_backend {BACKEND} if report"
"""Where reports go, behind all that known Models' requests go by."""
SECTION = (
    f"backend {BACKEND}",
    f"  http-request set-header {OF_HEADER} %[var(txn.key)]",
    f"  http-request del-header {contract.REQUEST_ID_HEADER}",
    f"  http-request set-header {contract.REQUEST_ID_HEADER} %[var(txn.id)]"
    " if { var(txn.assigned) -m found } { var(txn.unit) -m found }",
    "  http-error status 503 content-type application/json string"
    """ '{"error": "reports are not counted at this moment; send this one again"}'""",
    f"  server agent unix@{SOCKET} maxconn {_AT_ONCE}",
)


def _assigns(table: Table) -> bool:
    return any(split.outcomes is not None for split in table.endpoints.values())


def _names(table: Table) -> bool:
    return any(places.feedback for places in table.models.values())
