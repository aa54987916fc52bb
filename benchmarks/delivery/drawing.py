"""The results as one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_OURS, _RULES = "penstock", {"thresholds": "thresholds", "fisher": "Fisher, re-tested", "mannWhitney": "Mann-Whitney"}
_COLOURS = {_OURS: "#246", "thresholds": "#c22", "fisher": "#e90", "mannWhitney": "#999"}


def plot(rows: Sequence[Mapping[str, Any]], alpha: float, path: Path) -> None:
    """False rollbacks of candidates that are as good, and how long it takes to find those that are worse."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "penstock"  # the same results give the same file
    from matplotlib import pyplot

    null, shift = ([row for row in rows if row["kind"] == kind] for kind in ("null", "shift"))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 1.5 + 0.42 * max(len(null), len(shift))))
    for rule, label in {_OURS: "Penstock", **_RULES}.items():
        look: dict[str, Any] = {"color": _COLOURS[rule], "zorder": 3 if rule == _OURS else 2}
        rates = [row["falseRollback"] if rule == _OURS else row["rules"][rule]["rolledBack"] for row in null]
        left.plot([max(rate, 2e-4) for rate in rates], range(len(null)), "o", **look, label=label)
        times = [row["medianDetectionS"] if rule == _OURS else row["rules"][rule]["medianS"] for row in shift]
        found = [(time, place) for place, time in enumerate(times) if time is not None]
        right.plot([time for time, _ in found], [place for _, place in found], "o", **look)
    for place, row in enumerate(shift):
        if row["predictedDetectionS"] is not None:
            right.plot(row["predictedDetectionS"], place, "|", color="black", markersize=14)
    left.axvline(alpha, color="#888", linewidth=0.8)
    left.set_title(
        f"rolled back within an hour though no worse\n(line: α = {alpha:g}; none of them: at the left edge)", fontsize=9
    )
    right.set_title(
        "seconds until a worse one is rolled back, median\n(|: published before; no point: not found by most)",
        fontsize=9,
    )
    for axes, shown in ((left, null), (right, shift)):
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown], fontsize=8)
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.grid(axis="x", color="#ddd")
    figure.legend(loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
