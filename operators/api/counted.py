"""What a router counted, as it tells the operator: short, because it is written anew every few seconds.

``{SOURCE: [read_s, {WORKLOAD: [answered, failed, {EDGE: answers}, {SERVER: [answered, failed]}]}]}``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field, StringConstraints, TypeAdapter

from operators.api.base import Name
from operators.api.plan import EDGES, Counts, RouteObserved

_Number = Annotated[int, Field(ge=0, lt=2**63)]
_Edge = Annotated[int, pydantic.AfterValidator(lambda edge: _edge(edge))]
_Source = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}@[0-9]{1,20}$")]
_Server = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.:\[\]-]{1,80}$")]
_Told = tuple[_Number, _Number, dict[_Edge, _Number], dict[_Server, tuple[_Number, _Number]]]
_Workload = Annotated[_Told, pydantic.AfterValidator(lambda of: _workload(of))]
_Sources = dict[_Source, tuple[Annotated[float, Field(allow_inf_nan=False)], dict[Name, _Workload]]]
_COUNTS: TypeAdapter[_Sources] = TypeAdapter(_Sources)


def told(seen: RouteObserved) -> dict[str, Any]:
    """The counts of ``seen`` as values of JSON; empty where nothing is counted."""
    return {
        source: [
            round(seen.read_s[source], 3),
            {
                workload: [of.answered, of.failed, dict(of.latency), {s: list(n) for s, n in of.servers.items()}]
                for workload, of in counts.items()
            },
        ]
        for source, counts in seen.counts.items()
    }


def read(said: object, router: str) -> tuple[dict[str, Mapping[str, Counts]], dict[str, float]]:
    """Counts and when they were read, by source, as ``told`` by ``router``; empty if that is not what is ``said``.

    A source is named after its router, so that none can speak for another.
    """
    try:
        sources = _COUNTS.validate_python(said)
    except pydantic.ValidationError:
        return {}, {}
    counts: dict[str, Mapping[str, Counts]] = {
        f"{router}/{source}": {workload: Counts(*of) for workload, of in workloads.items()}
        for source, (_, workloads) in sources.items()
    }
    return counts, {f"{router}/{source}": read_s for source, (read_s, _) in sources.items()}


def _workload(of: _Told) -> _Told:
    answered, failed, latency, _ = of
    if failed > answered or sum(latency.values()) > answered - failed:
        raise ValueError(f"{failed} failed and {sum(latency.values())} well answered of {answered}")
    return of


def _edge(edge: int) -> int:
    shifted = edge
    while shifted >= 10 * EDGES[0] and shifted % 10 == 0:
        shifted //= 10
    if shifted not in EDGES:
        raise ValueError(f"{edge} is no edge of a cell")
    return edge
