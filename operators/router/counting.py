r"""What HAProxy counts of a Model's inference requests: the rules that make it count, and what its table then says.

HAProxy sees what a dead server cannot report, and every engine alike. One entry of a stick table is one cell: its key
says whose answer it was and how long it took, so that a request costs one look-up when its answer comes. A second
entry, the arm's, is held as long as the request lives.

    WORKLOAD:HOST:PORT/NAMESPACE:NAME:PLACE/CELL   http_req_cnt: answers; CELL is an edge in µs, or ``failed``
    WORKLOAD/NAMESPACE:NAME:PLACE                  http_req_cnt: requests; gpc0: answers of servers; use: under way
    WORKLOAD/NAMESPACE:NAME:PLACE/agreed           http_req_cnt: mirrored requests it agreed on; or ``disagreed``

Requests that are neither answered by a server nor under way came to nothing: a server died of them, none was there, or
it took so long that HAProxy or the client gave up. HAProxy itself counts only some of these, and on a connection that
has carried a request before it closes without a word. While an answer is on its way its request counts as answered and
as under way, so the difference may be too small for a moment, never too large: the greatest one seen is it.

A worker that begins to make room empties its tables, so it is no source any more; what it still had under way is not
counted.

Time runs from when the request is here and its arm is chosen to the head of the answer. HAProxy has no logarithm, but
a number is also an IPv4 address to it: ``cells.map`` covers each cell with the networks that make it up, and the
longest prefix is found in one look-up.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import re
from collections.abc import Mapping

from operators.api.plan import CELLS, Counts

MAP = "counted.map"
"""ns/name -> ``id`` for each Model that is counted and of whose answers users tell, 1 for each other one."""
CELLS_MAP = "cells.map"
"""What no command changes: the edge of the cell of a time in µs."""
TABLE = "catalog"
"""Of the one backend that is always there."""
_FAILED = "failed"
AGREED, DISAGREED, COPIED = "agreed", "disagreed", "copied"
"""Cells of mirrored requests, by what came of them (``mirroring``); they belong to no server. Those of an Endpoint have
the Model that got them in the place of a workload, and ``s`` for a place.
"""
_ENDLESS_US = 2**32
_ROW = re.compile(r"^0x\S+ key=(\S+/\S+) use=(\d+) .*\bgpc0=(\d+) http_req_cnt=(\d+)", re.MULTILINE)

Whose = tuple[str, str]

STORE = "stick-table type string len 255 size 100k expire 1d store http_req_cnt,gpc0"
"""The longest key is 63:45:5/63:40:1/9 characters. What nothing has touched for a day goes, and if there should be too
many entries, the one that was not touched for longest.
"""


def request(which: str) -> tuple[str, ...]:
    """Rules for requests that are ``which``, once the arm is known and nothing but a server is missing."""
    return (
        f"http-request set-var(txn.began) date(0,us) if {which} {{ var(txn.key),map({MAP}) -m found }} inference",
        "acl counted var(txn.began) -m found",
        f"http-request track-sc1 var(txn.arm),field(1,/),concat(/,txn.place) table {TABLE} if counted",
    )


RESPONSE = (
    "http-response allow if !counted",
    f"http-response set-var(txn.cell) date(0,us),sub(txn.began),map_ip({CELLS_MAP})",
    "acl celled var(txn.cell) -m found",
    f"http-response set-var(txn.cell) str({_FAILED}) if celled {{ status ge 400 }}",
    # An error of gRPC has no message, so its status is in the head. What a trailer says comes too late to be counted.
    f"http-response set-var(txn.cell) str({_FAILED})"
    " if celled { res.hdr(grpc-status) -m found } !{ res.hdr(grpc-status) -m int 0 }",
    f'http-response track-sc0 srv_name,concat(/,txn.place,/),concat("",txn.cell) table {TABLE} if celled',
    "http-response sc-inc-gpc0(1) if celled",
)


def cells() -> dict[str, str]:
    """Content of ``cells.map``: IPv4 network → lower edge of its cell, in µs."""
    bounds = [0, *CELLS[1:], _ENDLESS_US]
    return {
        str(network): str(edge)
        for edge, (first, end) in zip(CELLS, itertools.pairwise(bounds), strict=True)
        for network in ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(end - 1))
    }


@dataclasses.dataclass(frozen=True)
class Counted:
    """What one worker has counted, by (NAMESPACE:NAME, workload)."""

    answers: Mapping[Whose, Counts] = dataclasses.field(default_factory=dict)
    unanswered: Mapping[Whose, int] = dataclasses.field(default_factory=dict)

    def of(self, model: str) -> dict[str, Counts]:
        """Counts by workload of NAMESPACE:NAME."""
        found = {workload: counts for (of, workload), counts in self.answers.items() if of == model}
        for (of, workload), lost in self.unanswered.items():
            if of == model:
                found[workload] = _sum(found.get(workload, Counts()), Counts(lost, lost))
        return found


def parse(answer: str, pods: Mapping[str, str], before: Counted) -> Counted:
    """From ``show table``, and what the same worker had counted ``before``.

    ``pods`` is what a server is to be called, by WORKLOAD:HOST:PORT: it has a name for each protocol.
    """
    answers: dict[Whose, Counts] = {}
    unanswered = dict(before.unanswered)
    for row in _ROW.finditer(answer):
        key, under_way, answered, requests = row[1], *map(int, row.groups()[1:])
        who, place, *cell = key.split("/")
        workload, _, address = who.partition(":")
        whose = place.rpartition(":")[0], workload
        pod = pods.get(who, address)
        if not cell:
            unanswered[whose] = max(requests - answered - under_way, unanswered.get(whose, 0))
            continue
        if cell == [AGREED]:
            more = Counts(agreed=requests)
        elif cell == [DISAGREED]:
            more = Counts(disagreed=requests)
        elif cell == [COPIED]:
            more = Counts(requests)
        elif cell == [_FAILED]:
            more = Counts(requests, requests, servers={pod: (requests, requests)})
        else:
            latency = {int(cell[0]): requests}
            more = Counts(requests, 0, latency, {pod: (requests, 0)}, {pod: latency})
        answers[whose] = _sum(answers.get(whose, Counts()), more)
    return Counted(answers, unanswered)


def _sum(one: Counts, other: Counts) -> Counts:
    servers = dict(one.servers)
    for pod, (answered, failed) in other.servers.items():
        before = servers.get(pod, (0, 0))
        servers[pod] = before[0] + answered, before[1] + failed
    return Counts(
        one.answered + other.answered,
        one.failed + other.failed,
        _added(one.latency, other.latency),
        servers,
        {
            pod: _added(one.server_latency.get(pod, {}), other.server_latency.get(pod, {}))
            for pod in {**one.server_latency, **other.server_latency}
        },
        agreed=one.agreed + other.agreed,
        disagreed=one.disagreed + other.disagreed,
    )


def _added(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {cell: one.get(cell, 0) + other.get(cell, 0) for cell in {**one, **other}}
