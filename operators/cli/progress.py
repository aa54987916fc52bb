"""A rollout as people look at it: shares, steps, the evidence against both bounds, what comes next."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from operators.api import announced
from operators.api.commands import ONGOING
from operators.cli import show
from operators.cli.client import Object

_BAR, _SHORT_BAR = 30, 20
"""Cells of a share's bar, and of the evidence's, which has more words behind it: a line has 80."""
_FULL_WEIGHT = 10_000
_STYLES = {"Promoted": "bold green", "RolledBack": "bold red", "Withdrawn": "bold yellow", "Paused": "bold yellow"}
_WORDS = {"RolledBack": "rolled back"}
_PARTS = " ▏▎▍▌▋▊▉"


def as_data(model: Object) -> dict[str, Any]:
    """What a program wants to know, with the names of the API; steps from 1, weights in percent."""
    status = model.get("status", {})
    keys = ("name", "variant", "state", "weight", "readyReplicas", "message")
    return {
        "model": model["metadata"]["name"],
        "serves": status.get("revision", ""),
        "paused": bool(show.held_since(model) or (model["spec"].get("rollout") or {}).get("paused")),
        "steps": list((model["spec"].get("rollout") or {}).get("steps", ())),
        "rollout": announced.rollout(status.get("rollout") or {}),
        "revisions": announced.weighted([{key: each.get(key) for key in keys} for each in status.get("revisions", ())]),
    }


def page(model: Object, now: datetime.datetime) -> RenderableType:
    """The rollout that goes on, or the last one."""
    name, status = model["metadata"]["name"], model.get("status", {})
    rollout: Object = status.get("rollout") or {}
    if not rollout:
        serves = f"revision {status['revision']} serves" if status.get("revision") else "nothing serves yet"
        held = f"\nPaused: {_held(model, now)}" if show.is_held(model) else ""
        return Text(f"{name}: there was no rollout by steps; {serves}{held}")
    state = rollout["state"]
    word = _WORDS.get(state, state.lower())
    head = Text.assemble(
        (name, "bold"), f"   revision {rollout['revision']} in place of {rollout['stable']}   ", (word, _style(state))
    )
    said_already = bool(rollout.get("verdict")) and rollout["verdict"] in rollout["message"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for label, said in (
        ("Steps", _steps(model, rollout, now) if state in ONGOING else None),
        ("Against it", _standing(rollout.get("against"), "rolled back from", "red")),
        ("For it", _standing(rollout.get("inFavour"), "good enough from", "green")),
        ("Counted", None if said_already else rollout.get("verdict")),
        ("Finds", rollout.get("detection") if state in ONGOING else None),
        ("Paused", _held(model, now) if show.is_held(model) else None),
        ("Next", _retry(name) if state == "RolledBack" else _next(rollout, now)),
        ("Why", rollout.get("message")),
    ):
        if said:
            facts.add_row(label, said)
    return Group(head, Text(""), _shares(status), Text(""), facts)


def _held(model: Object, now: datetime.datetime) -> str:
    """What holds the next rollout, and how it is let go."""
    since = show.held_since(model)
    by = f"by hand {show.age(since, now)} ago" if since else "by spec.rollout.paused"
    return f"{by}, until `penstock rollout resume {model['metadata']['name']}`"


def _retry(name: str) -> str:
    return f"`penstock rollout retry {name}` tries it once more"


def line(model: Object) -> str:
    """The same in one line, for logs and pipes."""
    rollout: Object = model.get("status", {}).get("rollout") or {}
    said = rollout.get("message", "no rollout by steps")
    return f"{model['metadata']['name']}: {rollout.get('state', '-')}: {said}"


def bar(share: float, width: int = _BAR) -> str:
    """A bar of ``width`` cells, filled to ``share`` (0 to 1) in eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0 and not eighths:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_PARTS[rest] if rest else "")).ljust(width, "·")


def _shares(status: Object) -> Table:
    table = Table.grid(padding=(0, 2))
    for revision in status.get("revisions", ()):
        if revision["state"] == "Retired" and not revision.get("weight"):
            continue
        weight, state = revision.get("weight", 0), revision["state"]
        colour = {"Serving": "green", "Candidate": "cyan", "RolledBack": "red"}.get(state, "dim")
        state = _WORDS.get(state, state.lower())
        ready = f"{revision.get('readyReplicas', 0)} ready"
        share = Text(bar(weight / _FULL_WEIGHT), style=colour)
        table.add_row(f"  {revision['name']}", share, show.percent(weight), ready, Text(state, style=colour))
    return table


def _steps(model: Object, rollout: Object, now: datetime.datetime) -> Columns:
    planned: Sequence[Object] = (model["spec"].get("rollout") or {}).get("steps", ())
    planned = planned or [{"weight": rollout.get("target", 0) / 100}]
    said = []
    at = rollout.get("step", 0)
    for number, step in enumerate(planned):
        name = f"{step['weight']:g} %" + (f" for {step['for']}" if step.get("for", "0s") != "0s" else "")
        if number < at:
            said.append(Text(f"✓ {name}", style="green"))
        elif number == at:
            since = f" ({show.age(rollout['since'], now)})" if rollout.get("reached") else ""
            said.append(Text(f"▶ {name}{since}", style="bold cyan"))
        else:
            said.append(Text(f"· {name}", style="dim"))
    if planned[-1]["weight"] < 100:
        is_last = at >= len(planned)
        said.append(Text(f"{'▶' if is_last else '·'} all traffic", style="bold" if is_last else "dim"))
    return Columns(said, padding=(0, 3))


def _standing(standing: Object | None, what: str, colour: str) -> Text | None:
    """An e-value on its way to the bound, by logarithms."""
    if not standing:
        return None
    share = math.log(max(standing["e"], 1.0)) / math.log(standing["bound"])
    return Text.assemble(
        (bar(share, _SHORT_BAR), colour), f"  e-value {_times(standing['e'])}, {what} {standing['bound']:g} on"
    )


def _times(e: float) -> str:
    return f"{e:,.0f}" if 100 <= e < 1e6 else f"{e:.3g}"


def _next(rollout: Object, now: datetime.datetime) -> str:
    if rollout["state"] not in ONGOING or not rollout.get("next"):
        return ""
    if not rollout.get("nextAt"):
        return str(rollout["next"])
    left_s = round((datetime.datetime.fromisoformat(rollout["nextAt"].replace("Z", "+00:00")) - now).total_seconds())
    return f"{rollout['next']}, in {_left(left_s)}" if left_s > 0 else f"{rollout['next']}, about now"


def _left(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _style(state: str) -> str:
    return _STYLES.get(state, "bold cyan")
