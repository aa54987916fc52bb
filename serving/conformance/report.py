"""What is told of the findings: a table for a person, JSON for programs, and what a ServingRuntime would say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from serving.conformance.checks import Finding, State

_MARKS = {State.YES: "yes", State.NO: "no ", State.NOT_ASKED: "n/a"}


def line(finding: Finding) -> str:
    """One finding."""
    needed = ", which Penstock needs" if finding.check.needed and finding.state is State.NO else ""
    why = f": {' '.join(finding.why.split())}" if finding.why else ""
    return f"  {_MARKS[finding.state]}  {finding.check.says}{why}{needed}"


def declared(findings: Sequence[Finding]) -> Mapping[str, Any]:
    """Fields of a ServingRuntime's spec that follow from what was found."""
    can = {finding.check.name for finding in findings if finding.state is State.YES}
    ways = {"v1": "rest.v1", "v2": "rest.infer", "grpc-v2": "rpc.infer"}
    return {
        "protocols": [name for name, check in ways.items() if check in can],
        "grpcOverHttp1": "rpc.over_http1" in can,
        "readyPath": "/v2/health/ready",
    }


def lacking(findings: Sequence[Finding]) -> list[Finding]:
    """What Penstock cannot do without."""
    return [one for one in findings if one.check.needed and one.state is State.NO]


def summary(findings: Sequence[Finding]) -> str:
    """The last words for a person."""
    counts = {state: sum(one.state is state for one in findings) for state in State}
    said = declared(findings)
    fields = f"protocols: [{', '.join(said['protocols'])}], grpcOverHttp1: {json.dumps(said['grpcOverHttp1'])}"
    verdict = (
        f"Penstock cannot use it: {len(absent)} of what it needs is missing"
        if (absent := lacking(findings))
        else f"Penstock can use it; its ServingRuntime says {fields}"
    )
    return f"{counts[State.YES]} yes, {counts[State.NO]} no, {counts[State.NOT_ASKED]} not asked. {verdict}"


def document(findings: Sequence[Finding]) -> str:
    """All of it as JSON."""
    return json.dumps(
        {
            "usable": not lacking(findings),
            "servingRuntime": dict(declared(findings)),
            "checks": [
                {"name": one.check.name, "says": one.check.says, "needed": one.check.needed, "state": one.state.value}
                | ({"why": one.why} if one.why else {})
                for one in findings
            ],
        },
        indent=1,
    )
