"""A build's report as one page that needs no other file: what was made, how good it is, what it costs, and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jinja2

_WIDTH, _HEIGHT, _LEFT = 860, 380, 70
_LABEL, _LINE = 110, 14
"""Room for a point's name: points nearer than that to each other have theirs one below the other."""
_BARS = 30
"""Layers whose sensitivity is drawn."""


def plain(value: Any) -> Any:
    """``value`` with null in the place of what JSON has no number for."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None, form: str = "%.4f") -> str:
    return "" if value is None else form % value


def _said(step: dict[str, Any]) -> str:
    """A pass in one line, as a YAML says it: what was left out, is."""

    def flow(value: Any) -> str:
        if not isinstance(value, dict):
            return json.dumps(value)
        return "{ " + ", ".join(f"{key}: {flow(one)}" for key, one in value.items() if one is not None) + " }"

    return flow(step)


def page(report: dict[str, Any], title: str) -> str:
    """HTML of a report as ``building.Build.run`` gives it."""
    measured = [one for one in report["variants"] if "cpuMs" in one and "quality" in one]
    valued = [one for one in measured if one["quality"]["value"] is not None]
    asked = report["evaluation"] or {}
    plotted = _plotted(valued, report["selected"]) if valued else {"points": []}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.Undefined).from_string(
        Path(__file__).with_name("page.html.j2").read_text()
    )
    return template.render(
        report=report,
        number=_number,
        asked=asked,
        recipes={one["name"]: [_said(step) for step in one["passes"]] for one in report["variants"]},
        title=title,
        slice_bound=(asked.get("worstSlice") or {}).get("maxDrop"),
        sizes=sorted({size for one in measured for size in one["cpuMs"]}, key=int),
        slices=measured[0]["quality"]["slices"] if measured else [],
        bars=_BARS,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        **plotted,
    )


def _plotted(measured: list[dict[str, Any]], selected: str) -> dict[str, Any]:
    """Where each variant and each tick stands: cost on a logarithmic axis, quality on a linear one."""
    costs = [min(float(ms) / int(size) for size, ms in one["cpuMs"].items()) for one in measured]
    values = [one["quality"]["value"] for one in measured]
    first, last = math.floor(math.log10(min(costs)) * 3) / 3, math.ceil(math.log10(max(costs)) * 3) / 3
    # What is far below all that may serve would press the others into one line: it stands at the edge.
    low, high = float(min(values)), float(max(values))
    proven = [value for one, value in zip(measured, values, strict=True) if one["proven"]]
    if proven and low < (edge := min(proven) - max(0.01, 2 * (max(values) - min(proven)))):
        low = edge
    margin = 0.08 * (high - low) or 0.01

    def x(cost: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 110) * (math.log10(cost) - first) / max(last - first, 0.1)

    def y(value: float) -> float:
        return 10.0 + (_HEIGHT - 60) * (high + margin - max(value, low - margin / 2)) / (high - low + 2 * margin)

    ticks = [10.0**power * digit for power in range(math.floor(first), math.ceil(last) + 1) for digit in (1, 2, 5)]
    points: list[dict[str, Any]] = []
    for one, cost, value in zip(measured, costs, values, strict=True):
        point = {"x": round(x(cost), 1), "y": round(y(value), 1), "accepted": one["accepted"]}
        taken = [other["said_at"] for other in points if abs(other["x"] - point["x"]) < _LABEL]
        said_at = point["y"]
        while any(abs(said_at - other) < _LINE for other in taken):
            said_at += _LINE
        name = f"{one['name']}{f' ({value:.3f})' if value < low else ''}"
        points.append(point | {"name": name, "said_at": said_at, "is_selected": one["name"] == selected})
    return {
        "points": points,
        "x_ticks": [
            {"at": round(x(tick), 1), "said": f"{tick:g}"} for tick in ticks if first <= math.log10(tick) <= last
        ],
        "y_ticks": [{"at": round(y(value), 1), "said": f"{value:.3f}"} for value in (low, (low + high) / 2, high)],
    }
