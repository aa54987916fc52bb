"""A rollout as one page that needs no other file: who got which share when, what the evidence said, how it ended."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from operators.api.commands import ONGOING
from operators.cli import show
from operators.cli.client import Object

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 880, 250, 64, 150, 12, 30
_LINE = 15
"""Names at the right edge are at least that far from each other."""
_LEAST, _MOST = 0.1, 1e6
"""E-values beyond are drawn at the edge."""
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 172_800, 604_800)
_WORDS = {"RolledBack": "rolled back"}
_METRICS = {
    "errors": "failed",
    "agreement": "answered otherwise than the stable revision",
    "feedback": "were answered wrongly, of those with feedback",
}


def page(model: Object, now: datetime.datetime) -> str:
    """HTML of the latest rollout of ``model``, which has one; ``now`` is where one that goes on ends."""
    status, rollout = model["status"], model["status"]["rollout"]
    settings = model["spec"].get("rollout") or {}
    is_over = rollout["state"] not in ONGOING
    began = _time(rollout["began"])
    ended = _time(rollout["since"]) if is_over else now
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("rollout_page.html.j2").read_text()
    )
    return template.render(
        name=model["metadata"]["name"],
        namespace=model["metadata"].get("namespace", ""),
        rollout=rollout,
        word=_WORDS.get(rollout["state"], rollout["state"].lower()),
        is_over=is_over,
        took=_span((ended - began).total_seconds()),
        now=f"{now:%Y-%m-%d %H:%M:%S} UTC",
        began=f"{began:%Y-%m-%d %H:%M:%S} UTC",
        steps=_steps(settings, rollout, is_over),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).strip(),
        shares=_shares(rollout, settings, began, ended),
        evidence=_evidence(rollout, began, ended),
        counts=_counts(rollout),
        revisions=[r for r in status.get("revisions", ()) if r["name"] in (rollout["revision"], rollout["stable"])],
        percent=show.percent,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
    )


def _steps(settings: Object, rollout: Object, is_over: bool) -> list[dict[str, str]]:
    planned: Sequence[Object] = settings.get("steps") or ([{"weight": 10}] if settings.get("analysis") else ())
    at = rollout.get("step", 0)
    was_promoted = rollout["state"] == "Promoted"
    found = []
    for number, step in enumerate([*planned, {"weight": 100}]):
        said = f"{step['weight']:g} %" + (f" for {step['for']}" if step.get("for", "0s") != "0s" else "")
        is_done = number < at or was_promoted
        state = "done" if is_done else "ended" if number == at and is_over else "now" if number == at else "open"
        found.append({"said": said, "state": state})
    return found


def _shares(rollout: Object, settings: Object, began: datetime.datetime, ended: datetime.datetime) -> dict[str, Any]:
    """The traffic over time: lines of steps, since a share holds until it is another one."""
    trail = rollout.get("trail", ())
    x, ticks = _axis(began, ended)

    def y(weight: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - weight / 10_000)

    lines = {
        name: _stairs([(x(_time(p["at"])), y(p[name])) for p in trail], x(ended)) for name in ("asked", "observed")
    }
    planned = sorted({step["weight"] for step in settings.get("steps", ())})
    return {
        "lines": lines,
        "x_ticks": ticks,
        "y_ticks": [{"at": round(y(100 * said), 1), "said": f"{said} %"} for said in (0, 25, 50, 75, 100)],
        "guides": _apart([{"at": round(y(100 * weight), 1), "said": f"step: {weight:g} %"} for weight in planned]),
        "base": round(y(0), 1),
    }


def _evidence(rollout: Object, began: datetime.datetime, ended: datetime.datetime) -> dict[str, Any] | None:
    """E-values over time, by logarithms, with the bounds at which they decide; None where nothing was analysed."""
    trail = [point for point in rollout.get("trail", ()) if point.get("against") is not None]
    bounds = {
        name: rollout[key]["bound"]
        for name, key in (("against", "against"), ("inFavour", "inFavour"))
        if rollout.get(key)
    }
    if not bounds:
        return None
    values = [point[name] for point in trail for name in bounds if point.get(name) is not None]
    low = math.floor(math.log10(max(_LEAST, min([1.0, *values]))))
    high = math.ceil(math.log10(min(_MOST, max([10 * bound for bound in bounds.values()] + values))))
    x, ticks = _axis(began, ended)

    def y(e: float) -> float:
        power = min(max(math.log10(max(e, 1e-300)), low), high)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - power) / (high - low)

    said = {"against": "rolled back from", "inFavour": "good enough from"}
    return {
        "lines": {
            name: _stairs([(x(_time(p["at"])), y(p[name])) for p in trail if p.get(name) is not None], x(ended))
            for name in bounds
        },
        "x_ticks": ticks,
        "y_ticks": [{"at": round(y(10.0**power), 1), "said": _power(power)} for power in range(low, high + 1)],
        "guides": _apart(
            [{"at": round(y(at), 1), "said": f"{said[name]} {at:g}", "name": name} for name, at in bounds.items()]
        ),
        "beyond": any(value > 10.0**high for value in values),
    }


def _counts(rollout: Object) -> list[dict[str, Any]]:
    """What was counted of both revisions, by what it was compared; latency at each of its edges."""
    evidence = rollout.get("evidence") or {}
    slow = [f"took over {edge['aboveUs'] / 1000:g} ms" for edge in evidence.get("edges", ())]
    found = []
    for metric in evidence.get("metrics", ()):
        said = slow if metric["name"] == "latency" else [_METRICS[metric["name"]]]
        for what, tally in zip(said, metric["tallies"], strict=False):
            pairs = [tally["candidate"], tally["stable"]]
            cells = [{"requests": n, "bad": bad, "share": f"{100 * bad / n:.3g} %" if n else ""} for n, bad in pairs]
            found.append({"said": what, "cells": cells})
    return found


def _axis(began: datetime.datetime, ended: datetime.datetime) -> tuple[Any, list[dict[str, Any]]]:
    """Where a time stands, and the ticks."""
    length_s = max((ended - began).total_seconds(), 1.0)

    def x(at: datetime.datetime) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max((at - began).total_seconds() / length_s, 0.0), 1.0)

    between_s = next((each for each in _TICKS_S if length_s / each <= 8), _TICKS_S[-1])
    times = (number * between_s for number in range(int(length_s // between_s) + 1))
    return x, [{"at": round(x(began + datetime.timedelta(seconds=s)), 1), "said": _span(s)} for s in times]


def _stairs(points: Sequence[tuple[float, float]], end: float) -> str:
    """An SVG path that keeps each height until the next point, and the last one until ``end``."""
    if not points:
        return ""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for x, y in points[1:]:
        path += f"H{x:.1f}V{y:.1f}"
    return f"{path}H{end:.1f}"


def _apart(guides: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With places for their names, none over another."""
    last = math.inf
    for guide in sorted(guides, key=lambda one: -one["at"]):
        last = guide["said_at"] = min(guide["at"], last - _LINE)
    return guides


def _power(power: int) -> str:
    return f"{10.0**power:g}" if power < 4 else f"10{str(power).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _span(seconds: float) -> str:
    """A time in its two largest units: 90 s is 1 min 30 s."""
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    left, said = round(seconds), []
    for unit, length_s in units:
        number, left = divmod(left, length_s)
        if number:
            said.append(f"{number} {unit}")
    return " ".join(said[:2]) or "0"


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
