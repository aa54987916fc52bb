"""From what the data plane counted to what happened between two looks at it.

A window is made for each source by itself: routers may have different shares for the moment, and then their sum would
compare different hours. A source counts when both its ends are known, nothing in it went backwards, and the same shares
were observed at both. Everything else (a source that ended or began, a counter that was reset, a change of weights,
nothing told at all) gives no window, which is no evidence and never zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from operators.api.evidence import Edge, Mark
from operators.api.plan import Counts, RouteObserved


@dataclasses.dataclass(frozen=True)
class Table:
    """Requests, and bad ones among them, of both sides in one window."""

    candidate: int
    candidate_bad: int
    stable: int
    stable_bad: int


@dataclasses.dataclass(frozen=True)
class Window:
    """One source between two looks."""

    errors: Table
    slower: tuple[Table, ...]
    """By edge: slower than the edge."""
    too_slow: tuple[Table, ...]
    """By edge: the stable's slower than the edge, the candidate's slower than the edge with the allowed ratio."""
    compared: tuple[int, int] = (0, 0)
    """Mirrored requests on which the candidate agreed and disagreed."""
    judged: Table = Table(0, 0, 0, 0)
    """Answers that users told of; bad ones were wrong."""


def total(route: RouteObserved | None, workload: str) -> Counts:
    """What all sources together have counted of ``workload``."""
    told = [by_workload[workload] for by_workload in route.counts.values() if workload in by_workload] if route else []
    latency: dict[int, int] = {}
    for one in told:
        for cell, count in one.latency.items():
            latency[cell] = latency.get(cell, 0) + count
    return Counts(sum(one.answered for one in told), sum(one.failed for one in told), latency)


def by_server(
    route: RouteObserved | None, workload: str, edges: Sequence[Edge], most: int
) -> dict[str, tuple[int, ...]]:
    """Counters of the first ``most`` servers by name: answered, failed, answered well, slower than each edge.

    All of them as one, with an empty name, where there is only one or they are not told apart. Where latency is not
    told by server nothing is answered well by any, so that their failures alone are compared.
    """
    above = [edge.above_us for edge in edges]
    told = [by_workload[workload] for by_workload in route.counts.values() if workload in by_workload] if route else []
    names = sorted({name for one in told for name in one.servers})[:most]
    if len(names) < 2:
        names = [""]
    found = dict.fromkeys(names, (0,) * (3 + len(above)))
    for one in told:
        for name in names:
            answered, failed = one.servers.get(name, (0, 0)) if name else (one.answered, one.failed)
            cells = one.server_latency.get(name, {}) if name else one.latency
            more = _counters(Counts(answered, failed, cells), above)
            found[name] = tuple(a + b for a, b in zip(found[name], more, strict=True))
    return found


def marks(route: RouteObserved | None, stable: str, candidate: str, edges: Sequence[Edge]) -> tuple[Mark, ...]:
    """The counters of every source that tells of the stable; none of a candidate that it does not tell of."""
    counts = route.counts if route else {}
    above, allowed = [edge.above_us for edge in edges], [edge.allowed_us for edge in edges]
    return tuple(
        Mark(
            source=source,
            stable=_counters(told[stable], above),
            candidate=_counters(told[candidate], [*above, *allowed]) if candidate in told else (),
            compared=(told[candidate].agreed, told[candidate].disagreed) if candidate in told else (),
            judged=(*_judged(told[stable]), *_judged(told[candidate])) if candidate in told else (),
        )
        for source, told in sorted(counts.items())
        if stable in told
    )


def _judged(counts: Counts) -> tuple[int, int]:
    return counts.judged, counts.wrong


def _counters(counts: Counts, edges: Sequence[int]) -> tuple[int, ...]:
    if not edges:
        return counts.answered, counts.failed, counts.answered - counts.failed
    cells = counts.latency.items()
    slower = (sum([n for cell, n in cells if cell >= edge]) for edge in edges)
    return counts.answered, counts.failed, sum(counts.latency.values()), *slower


def between(before: Sequence[Mark], after: Sequence[Mark]) -> tuple[Window, ...]:
    """What each source that is in both counted meanwhile. Of a candidate that is not known at both ends: no request."""
    earlier = {mark.source: mark for mark in before}
    found = []
    for mark in after:
        start = earlier.get(mark.source)
        if start is None:
            continue
        stable = grown(start.stable, mark.stable)
        unknown = not start.candidate or not mark.candidate
        nothing = (0,) * (2 * len(mark.stable) - 3)
        candidate = nothing if unknown else grown(start.candidate, mark.candidate)
        agreed, disagreed = grown(start.compared, mark.compared) or (0, 0)
        told, wrong, of_candidate, wrong_of_candidate = grown(start.judged, mark.judged) or (0, 0, 0, 0)
        if stable is not None and candidate is not None:
            window = _window(stable, candidate)
            judged = Table(of_candidate, wrong_of_candidate, told, wrong)
            found.append(dataclasses.replace(window, compared=(agreed, disagreed), judged=judged))
    return tuple(found)


def grown(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...] | None:
    """What was added to each counter; None where one went backwards, or where they are not the same counters."""
    if len(before) != len(after):
        return None
    added = tuple(now - then for then, now in zip(before, after, strict=True))
    return None if min(added, default=0) < 0 else added


def _window(stable: Sequence[int], candidate: Sequence[int]) -> Window:
    many = len(stable) - 3
    pairs = list(zip(candidate[3 : 3 + many], candidate[3 + many :], stable[3:], strict=True))
    return Window(
        errors=Table(candidate[0], candidate[1], stable[0], stable[1]),
        slower=tuple(Table(candidate[2], x, stable[2], z) for x, _, z in pairs),
        too_slow=tuple(Table(candidate[2], y, stable[2], z) for _, y, z in pairs),
    )


def share(route: RouteObserved | None, stable: str, candidate: str) -> int | None:
    """The candidate's share of the traffic as the data plane reports it, in 0.01 %; None where it reports neither."""
    weights: Mapping[str, int] = {arm.workload: arm.weight for arm in route.arms} if route else {}
    return weights.get(candidate, 0) if stable in weights or candidate in weights else None
