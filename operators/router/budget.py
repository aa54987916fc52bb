"""How many requests may be sent again: a share of those of late, so that a fault of servers does not double their load.

A request whose server ended without a word may have killed it, and sent again it may kill the next one. While that is
rare it is what keeps clients from seeing a server die; where a fifth of all need it, it is more of what hurts. So for
each backend there is a budget: ``SHARE`` of what its servers brought to an end in the last ``WINDOW_S``, ``FREE`` at
least. HAProxy counts both by itself and is told which budgets are spent by ``spent.map``, within a second or so.
Connections that fail are no part of it: they have brought no server anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from operators.router.ejection import Tally

MAP = "spent.map"
"""Backend -> 1 while its budget is spent."""
SHARE, WINDOW_S, FREE = 0.2, 10.0, 5
_APART_S = 1.0

Look = tuple[float, int, int]
"""When, and what had been brought to an end, and what had been sent again."""


def looked(
    before: Mapping[str, tuple[Look, ...]], seen: Mapping[str, Mapping[str, Tally]], now_s: float
) -> tuple[dict[str, tuple[Look, ...]], dict[str, str]]:
    """What is remembered of each backend after one more look at its servers' counters, and the map."""
    after: dict[str, tuple[Look, ...]] = {}
    spent: dict[str, str] = {}
    for backend, servers in seen.items():
        ended = sum(tally.well + tally.failed for tally in servers.values())
        again = sum(tally.again for tally in servers.values())
        recent = tuple(look for look in before.get(backend, ()) if look[0] >= now_s - WINDOW_S)
        if recent and (ended < recent[-1][1] or again < recent[-1][2]):
            # A server left and took its counters with it, or a new worker counts anew.
            recent = ()
        if not recent or now_s - recent[-1][0] >= _APART_S:
            recent = (*recent, (now_s, ended, again))
        after[backend] = recent
        _, ended_before, again_before = recent[0]
        if again - again_before > max(FREE, SHARE * (ended - ended_before)):
            spent[backend] = "1"
    return after, spent
