"""``penstock experiment``: an Endpoint's arms by what clients reported, each beside the first one, and the verdict."""

from __future__ import annotations

import datetime
import threading
from typing import Annotated, Any

import typer

from operators.api import announced
from operators.api.errors import OperatorError
from operators.cli import arms, connecting, kinds, show, verbs, watching
from operators.cli.client import Client, Object

_AXIS, _BAR, _NAME = 25, 15, 14
"""Cells of an interval's axis, of a share's bar, and of the longest name that is shown whole: a line has 80."""
_STYLES = {"Found": "bold green", "Blocked": "bold red", "Concluded": "bold", "Running": "cyan"}


@connecting.connected
def experiment(
    client: Client,
    name: verbs.Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C, or until it is concluded.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="json: weights in percent.")] = "",
) -> None:
    """Show what an Endpoint's experiment or bandit knows: arms, shares, outcomes, intervals, verdict."""
    watching.check(output)
    pause = threading.Event()
    with watching.shown(output, watch, as_data, page, line) as show_:
        while True:
            endpoint = client.get(kinds.of("Endpoint"), *verbs.split(name, client))
            found = _status(endpoint)
            show_(endpoint)
            if not watch or found["state"] == "Concluded":
                return
            pause.wait(watching.POLL_S)


def as_data(endpoint: Object) -> dict[str, Any]:
    """What a program wants to know, with the names of the API; weights in percent."""
    return {"endpoint": endpoint["metadata"]["name"], **(announced.experiment(_status(endpoint)) or {})}


def line(endpoint: Object) -> str:
    """The same in one line, for logs and pipes."""
    found = _status(endpoint)
    return f"{endpoint['metadata']['name']}: {found['state']}: {arms.verdict(endpoint)}"


def page(endpoint: Object, now: datetime.datetime) -> Any:
    """The arms with their shares and intervals, and what is to be thought of them."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from operators.cli.progress import bar

    found, name = _status(endpoint), endpoint["metadata"]["name"]
    state = found["state"]
    head = Text.assemble(
        (name, "bold"),
        f"   {'bandit' if found['policy'] == 'bandit' else 'experiment'} on {found['metric']}   "
        f"since {show.age(found['began'], now)}   ",
        (state.lower(), _STYLES.get(state, "")),
    )
    known: list[Object] = found.get("arms", [])
    ends = [arm["effect"][end] for arm in known if arm.get("effect") for end in ("low", "high")]
    width = max((len(_short(arm["name"])) for arm in known), default=0)
    shares, intervals = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
    for arm in known:
        effect, called = arm.get("effect"), Text(f"  {_short(arm['name']):<{width}}", no_wrap=True)
        mean = f"mean {arm['mean']:.4g}" if arm.get("mean") is not None else ""
        share = Text(bar(arm["weight"] / 10_000, _BAR), style="cyan")
        shares.add_row(called, share, show.percent(arm["weight"]), f"{arm.get('units', 0):,} outcomes", mean)
        if effect:
            drawn = interval(effect["low"], effect["value"], effect["high"], max(map(abs, ends)))
            style = "green" if effect["low"] > 0 else "red" if effect["high"] < 0 else ""
            intervals.add_row(called, Text.assemble((drawn, style), f"  {arms.effect(arm)}"))
        if arm.get("out"):
            intervals.add_row(called, f"out: {arm['out']}")
    verdict = Padding(Text(arms.verdict(endpoint)), (0, 0, 0, 2))
    return Group(head, Text(""), shares, Text(""), *([intervals] if intervals.row_count else []), verdict)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def interval(low: float, value: float, high: float, reach: float) -> str:
    """An interval on an axis from -``reach`` to ``reach``, with zero in its middle."""

    def at(where: float) -> int:
        return round((where / reach + 1) / 2 * (_AXIS - 1)) if reach else _AXIS // 2

    cells = [" "] * _AXIS
    cells[at(low) : at(high) + 1] = "─" * (at(high) - at(low) + 1)
    cells[_AXIS // 2] = "│"
    cells[at(low)], cells[at(high)] = "├", "┤"
    cells[at(value)] = "●"
    return "".join(cells)


def _status(endpoint: Object) -> Object:
    name = endpoint["metadata"]["name"]
    if found := arms.experiment(endpoint):
        return found
    spec = endpoint["spec"]
    if spec.get("experiment") or spec.get("policy") == "bandit":
        why = show.condition(endpoint, "Accepted").get("message") or "the operator has not looked at it yet"
        raise OperatorError(f"endpoint {name}: nothing is known of its experiment: {why}")
    raise OperatorError(f"endpoint {name}: its spec has no experiment; add spec.experiment, or policy: bandit")
