"""At which latencies stable and candidate are compared: a few edges of the counted cells, chosen before the rollout.

"Slower than this edge" is a bad answer like a failed one, so the same tests apply, and no quantile is interpolated. A
revision that is no slower answers no larger share above any edge; the mean of e-values over edges says so of all of
them at once, and finds a shift wherever it shows most.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping

from operators.api.evidence import Edge
from operators.api.model import MaxLatencyIncrease
from operators.api.plan import CELLS

PERCENTILES = (50.0, 80.0, 95.0)
"""Percentiles of the stable that are compared beside the one that the spec names."""
ENOUGH = 200
"""Requests from which edges are chosen."""


def choose(history: Mapping[int, int], limit: MaxLatencyIncrease | None) -> tuple[Edge, ...]:
    """The edges next above the percentiles of ``history`` (requests by lower edge in µs), the one that ``limit`` names
    first; none where latency is not judged or too few requests were counted.
    """
    if limit is None or sum(history.values()) < ENOUGH:
        return ()
    chosen: dict[int, Edge] = {}
    for percentile in (limit.percentile, *PERCENTILES):
        above = _above(history, percentile)
        chosen.setdefault(above, _edge(history, above, limit.ratio))
    return tuple(chosen.values())


def _above(history: Mapping[int, int], percentile: float) -> int:
    """The lowest edge above which there are no more than the slowest 100 - ``percentile`` per cent."""
    most = sum(history.values()) * (100 - percentile) / 100
    return next((edge for edge in CELLS if _slower(history, edge) <= most), CELLS[-1])


def _edge(history: Mapping[int, int], above: int, ratio: float) -> Edge:
    total = sum(history.values())
    return Edge(
        above_us=above,
        allowed_us=CELLS[bisect.bisect_right(CELLS, above * ratio) - 1],
        share=round(_slower(history, above) / total, 6),
        share_if_slower=round(_beyond(history, above / ratio) / total, 6),
    )


def _slower(history: Mapping[int, int], edge: int) -> int:
    return sum(count for cell, count in history.items() if cell >= edge)


def _beyond(history: Mapping[int, int], latency_us: float) -> float:
    """Requests above any latency: within a cell as if spread evenly over its logarithm."""
    place = min(max(bisect.bisect_right(CELLS, latency_us), 1), len(CELLS) - 1)
    low, high = CELLS[place - 1], CELLS[place]
    inside = math.log(high / max(latency_us, low)) / math.log(high / low)
    return _slower(history, high) + inside * (_slower(history, low) - _slower(history, high))
