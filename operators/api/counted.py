"""What a router counted, as it tells the operator: short, because it is written anew every few seconds.

``{SOURCE: [read_s, {WORKLOAD: [answered, failed, CELLS, {SERVER: [failed, CELLS]}]}]}``, and behind a
workload's servers ``[agreed, disagreed]`` where mirrored requests were compared, and behind these ``judged, wrong``
where users told of answers.

CELLS are counts of one cell of latency after the other: the lower edge of the first in microseconds, then how many
answers each has; -3 stands for three empty ones. So 20 ms of answers and one after a second are
``[1100, 40, 51, 7, -55, 1]``, and with all of a dozen servers an arm takes 1 to 2 KiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field, StringConstraints, TypeAdapter

from operators.api.base import Name
from operators.api.plan import CELLS, MOST_SERVERS, Counts, RouteObserved

REPORTED_S = 5.0
"""How often a router tells what it counted, in seconds: the operator's counts are as old as that at most."""
_Number = Annotated[int, Field(ge=0, lt=2**63)]
_Source = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}@[0-9]{1,20}$")]
_Server = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.:\[\]-]{1,80}$")]
_Cells = Annotated[dict[int, _Number], pydantic.BeforeValidator(lambda said: _unpacked(said))]
_Servers = dict[_Server, tuple[_Number, _Cells]]
_Compared = tuple[_Number, _Number] | tuple[_Number, _Number, _Number, _Number]
_Told = tuple[_Number, _Number, _Cells, _Servers] | tuple[_Number, _Number, _Cells, _Servers, _Compared]
_Workload = Annotated[_Told, pydantic.AfterValidator(lambda of: _workload(of))]
_Sources = dict[_Source, tuple[Annotated[float, Field(allow_inf_nan=False)], dict[Name, _Workload]]]
_COUNTS: TypeAdapter[_Sources] = TypeAdapter(_Sources)


def told(seen: RouteObserved) -> dict[str, Any]:
    """The counts of ``seen`` as values of JSON; empty where nothing is counted. Of each workload's servers the first
    ``MOST_SERVERS`` by name.
    """
    return {
        source: [
            round(seen.read_s[source], 3),
            {
                workload: [
                    of.answered,
                    of.failed,
                    _packed(of.latency),
                    {
                        server: [of.servers[server][1], _packed(of.server_latency.get(server, {}))]
                        for server in sorted(of.servers)[:MOST_SERVERS]
                    },
                    *_compared(of),
                ]
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
        f"{router}/{source}": {workload: _counts(of) for workload, of in workloads.items()}
        for source, (_, workloads) in sources.items()
    }
    return counts, {f"{router}/{source}": read_s for source, (read_s, _) in sources.items()}


def _counts(of: _Told) -> Counts:
    answered, failed, latency, servers, *more = of
    compared = more[0] if more else ()
    return Counts(
        answered,
        failed,
        latency,
        {server: (failed + sum(cells.values()), failed) for server, (failed, cells) in servers.items()},
        {server: cells for server, (_, cells) in servers.items() if cells},
        *compared,
    )


def _compared(of: Counts) -> list[list[int]]:
    """What is told behind the servers, if anything is."""
    if of.judged:
        return [[of.agreed, of.disagreed, of.judged, of.wrong]]
    return [[of.agreed, of.disagreed]] if of.agreed or of.disagreed else []


def _workload(of: _Told) -> _Told:
    answered, failed, latency, *_ = of
    if failed > answered or sum(latency.values()) > answered - failed:
        raise ValueError(f"{failed} failed and {sum(latency.values())} well answered of {answered}")
    if len(of) == 5 and len(of[4]) == 4 and of[4][3] > of[4][2]:
        raise ValueError(f"{of[4][3]} wrong ones of {of[4][2]} answers that users told of")
    return of


def _packed(latency: Mapping[int, int]) -> list[int]:
    packed: list[int] = []
    end = 0
    for place, cell in enumerate(CELLS):
        if cell in latency:
            gap = [end - place] if place > end else []
            packed += [*(gap if packed else [cell]), latency[cell]]
            end = place + 1
    return packed


def _unpacked(said: object) -> dict[int, int]:
    if not isinstance(said, list) or not all(type(n) is int for n in said):
        raise ValueError(f"{said!r} is no list of numbers")
    if said and said[0] not in CELLS:
        raise ValueError(f"{said[0]} is no edge of a cell")
    place, found = CELLS.index(said[0]) if said else 0, {}
    for n in said[1:]:
        if n < 0:
            place -= n
        elif place < len(CELLS):
            found[CELLS[place]] = n
            place += 1
        else:
            raise ValueError(f"more than the {len(CELLS)} cells")
    return found
