"""Metrics of several processes as those of one: counters, histograms and gauges add up, family by family.

Between processes they travel as plain lists, ``[name, kind, explanation, [[labels, value], …]]``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from operator import add
from typing import Any

from serving.telemetry.metrics import Distribution, Family, Labels

_EARLIEST = frozenset({"process_start_time_seconds"})
"""Gauges of which the smallest is shown, not the sum."""


def of(families: Iterable[Family]) -> list[Any]:
    """What these metrics say now, as plain lists."""
    return [
        [family.name, family.kind, family.explanation, [[labels, _plain(value)] for labels, value in family.read()]]
        for family in families
    ]


def families(plain: Iterable[Any]) -> list[Family]:
    """Plain lists as metrics again."""
    return [Family(name, kind, explanation, functools.partial(_read, at)) for name, kind, explanation, at in plain]


def without_gauges(plain: Iterable[Any]) -> list[Any]:
    """What stays true of a process that has ended."""
    return [family for family in plain if family[1] != "gauge"]


def added(processes: Iterable[Iterable[Any]]) -> list[Any]:
    """The sums over all processes, in the order in which families and labels are first met."""
    found: dict[str, tuple[list[Any], dict[Any, Any]]] = {}
    for process in processes:
        for name, kind, explanation, values in process:
            _, sums = found.setdefault(name, ([name, kind, explanation], {}))
            combine = min if name in _EARLIEST else _sum
            for labels, value in values:
                at = _labels(labels)
                sums[at] = combine(sums[at], value) if at in sums else value
    return [[*head, [[labels, value] for labels, value in sums.items()]] for head, sums in found.values()]


def _read(values: Iterable[Any]) -> list[tuple[Labels, float | Distribution]]:
    return [(_labels(labels), _value(value)) for labels, value in values]


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {**one, "counts": list(map(add, one["counts"], other["counts"])), "sum": one["sum"] + other["sum"]}
    return one + other


def _plain(value: float | Distribution) -> Any:
    return value._asdict() if isinstance(value, Distribution) else value


def _value(value: Any) -> float | Distribution:
    return Distribution(**value) if isinstance(value, dict) else value


def _labels(plain: Iterable[Sequence[str]]) -> Labels:
    return tuple((name, value) for name, value in plain)
