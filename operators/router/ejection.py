"""Which servers get no requests for a while: those that fail where others of the same arm do not.

HAProxy counts by itself what each server answered, so this costs no request anything. A server is judged as soon as it
has brought ``ENOUGH`` requests to an end since it was last judged: at 100 requests a second with every look, at one
every five. If ``BAD`` of them failed, and less than ``GOOD`` of what half of the others did meanwhile, the fault is
its own: it is left out for ``FIRST_S``, and each time that it fails again as it comes back for twice as long. What all
of them do, such as refusing what is too much for them, is no reason to leave one of them out, for the others would
have to do its part as well; nor does an arm ever lose more than half of its servers.

A failure is a status of 500 or more, no answer, or no connection. gRPC's errors come with status 200, so they are none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from statistics import median_low

ENOUGH = 5
BAD, GOOD = 0.5, 0.1
FIRST_S, LONGEST_S = 5.0, 300.0

Which = tuple[str, str]
"""Backend and name of a server."""


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a server has brought to an end since counting began."""

    well: int = 0
    failed: int = 0
    again: int = 0
    """Requests that another server got because this one ended without a word."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is remembered of one server."""

    mark: Tally
    """Its counters when it was last judged."""
    share: float = 0.0
    """Of failures when it was last judged."""
    judged_s: float = -math.inf
    times: int = 0
    """How often it failed again, less how often it did well."""
    out_until_s: float = 0.0

    def so_far(self, tally: Tally) -> float:
        """Share of failures since it was last judged; where there was no request since, what it was then."""
        well, failed = tally.well - self.mark.well, tally.failed - self.mark.failed
        return failed / (well + failed) if well + failed else self.share


def judged(
    before: Mapping[Which, Record], seen: Mapping[str, Mapping[str, Tally]], now_s: float
) -> dict[Which, Record]:
    """What is known of each server, by backend and name, after one more look at their counters."""
    after: dict[Which, Record] = {}
    for backend, servers in seen.items():
        of = {name: _looked(before.get((backend, name)), tally, now_s) for name, tally in servers.items()}
        for name, record in of.items():
            others = [
                other.so_far(servers[beside])
                for beside, other in of.items()
                if beside != name and other.out_until_s <= now_s
            ]
            if record.share < BAD or record.judged_s != now_s or not others or median_low(others) >= GOOD:
                continue
            if sum(other.out_until_s > now_s for other in of.values()) + 1 <= len(of) / 2:
                until_s = now_s + min(FIRST_S * 2**record.times, LONGEST_S)
                of[name] = dataclasses.replace(record, times=record.times + 1, out_until_s=until_s)
        after |= {(backend, name): record for name, record in of.items()}
    return after


def left_out(records: Mapping[Which, Record], now_s: float) -> frozenset[Which]:
    """The servers that get no requests now."""
    return frozenset(which for which, record in records.items() if record.out_until_s > now_s)


def _looked(before: Record | None, tally: Tally, now_s: float) -> Record:
    if before is None:
        return Record(tally)
    well, failed = tally.well - before.mark.well, tally.failed - before.mark.failed
    if well < 0 or failed < 0 or before.out_until_s > now_s:
        # A new worker counts anew; and what a server that is left out still answers is of before.
        return dataclasses.replace(before, mark=tally)
    if well + failed < ENOUGH:
        return before
    share = failed / (well + failed)
    times = before.times if share >= BAD else max(before.times - 1, 0)
    return dataclasses.replace(before, mark=tally, share=share, judged_s=now_s, times=times)
