"""Requests of an Endpoint of which other Models get copies: the rules by which HAProxy marks them.

Which are marked is drawn once for all shadows of an Endpoint: by chance, or by a hash of what keeps a client at one
arm, salted so that it is not always the same arm's clients. So the smaller share is a part of the larger one.
All else is done as in ``mirroring``, but that a copy for a Model has no aim among its revisions: its weights decide.

    shadows.map  ns/name/i -> UNITS|AIM|COUNTER|HOW of shadow i of an Endpoint
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from operators.api.plan import FULL_WEIGHT
from operators.router import assignment, mirroring
from operators.router.table import Table

MAP = "shadows.map"
_SPLIT = "{ var(txn.route) -m str -- -2 }"


def entries(table: Table) -> dict[str, str]:
    """Content of ``shadows.map``."""
    return {
        f"{key}/{number}": mirroring.entry(
            shadow.weight,
            f"{split.namespace}:{shadow.model}",
            f"{shadow.model}/{split.namespace}:{split.name}:s",
            shadow.compare,
            model=shadow.model,
        )
        for key, split in table.endpoints.items()
        for number, shadow in enumerate(split.shadows)
    }


def counters(entries: Mapping[str, str], key: str) -> list[str]:
    """MODEL/NAMESPACE:NAME:s of each shadow that ``shadows.map`` has of an Endpoint."""
    return [entry.split("|")[2] for name, entry in entries.items() if name.rpartition("/")[0] == key]


def rules(table: Table) -> Iterator[str]:
    """While the key is still the Endpoint's."""
    shadowed = [split for split in table.endpoints.values() if split.shadows]
    if not shadowed:
        return
    yield f"http-request set-var(txn.copied) rand({FULL_WEIGHT}) if {_SPLIT} inference"
    for by in assignment.distinct(split.assignment for split in shadowed):
        yield from assignment.hashed(by, "txn.copied", f"{_SPLIT} inference", "copied ")
    for number in range(max(len(split.shadows) for split in shadowed)):
        yield f"http-request set-var-fmt(txn.shadow) %[var(txn.key)]/{number} if {_SPLIT} inference"
        yield f"http-request set-var(txn.shadow_{number}) var(txn.shadow),map({MAP}) if {_SPLIT} inference"
        yield from mirroring.marked(f"txn.shadow_{number}", "var(txn.copied)")
