"""What ``penstock up`` shows: one line a change of state, and on a terminal the state itself, kept current."""

from __future__ import annotations

import collections
import contextlib
import datetime
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import rich.box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from operators.api.commands import ONGOING
from operators.api.plan import Key
from operators.cli import datadir, show
from operators.cli.client import Object

_EVENTS = 8
_GAP = 3
_DROPPED_FIRST = ("URL", "AGE", "REPLICAS", "REVISION", "GAIN", "VARIANT", "ARMS")
"""Columns that a narrow terminal goes without, in this order."""


class View(Protocol):
    """Where ``penstock up`` tells what happens; two implementations, for terminals and for everything else."""

    def event(self, line: str) -> None:
        """Something changed."""

    def state(self, objects: Sequence[Object]) -> None:
        """What all Models and Endpoints are like now; one that was not looked at yet has no status."""

    def close(self, line: str) -> None:
        """Nothing more will be told but this."""


class Changes:
    """Turns states of objects into lines: one when what a person would want to know is different from before."""

    def __init__(self) -> None:
        self._told: dict[Key, str] = {}

    def line(self, key: Key, object_: Object | None) -> str | None:
        """What is new about the object (None: it is gone), if anything is."""
        name = f"{key.kind.lower()} {key.namespace}/{key.name}" if key.namespace else f"{key.kind.lower()} {key.name}"
        if object_ is None:
            return f"{name} deleted" if self._told.pop(key, None) else None
        told = f"{name} {_state(object_)}"
        if self._told.get(key) == told:
            return None
        self._told[key] = told
        return told


def _state(object_: Object) -> str:
    ready = show.condition(object_, "Ready")
    if not ready:
        return "applied"
    url = object_.get("status", {}).get("url", "")
    if ready["status"] == "True" and ready["reason"] == "Serving":
        revision = object_["status"].get("revision")
        name, about = object_["metadata"]["name"], show.condition(object_, "VariantsReady").get("reason")
        how_far = f"; variants are being made, `penstock describe model {name}` says how far"
        serves = f"Ready: {url}" + (f" (revision {revision})" if revision else "")
        return serves + (how_far if about == "Building" else "") + _moving(object_)
    word = "Ready" if ready["status"] == "True" else "not ready"
    return f"{word} ({ready['reason']}): {_message(object_)}"


def _moving(object_: Object) -> str:
    """How far a rollout by steps is; a line for each step and each time that it stops."""
    rollout = object_["status"].get("rollout") or {}
    if rollout.get("state") not in ONGOING:
        return ""
    to, step = show.percent(rollout.get("target", 0)), rollout.get("step", 0) + 1
    where = f"step {step} of {rollout['steps']}" if step <= rollout["steps"] else "all steps are over"
    stops = "" if rollout["state"] == "Progressing" else f", {rollout['state'].lower()}"
    return f"; revision {rollout['revision']} is to get {to}, {where}{stops}"


def _message(object_: Object) -> str:
    """Why it is as it is; the object's own name is left out, for the line begins with it."""
    message: str = show.condition(object_, "Ready").get("message", "")
    return message.replace(f"{object_['kind'].lower()} {object_['metadata']['name']}: ", "")


class Lines:
    """A line for each change, for logs and pipes."""

    def event(self, line: str) -> None:
        with _heard_or_not():
            print(line, flush=True)

    def state(self, objects: Sequence[Object]) -> None:
        pass

    def close(self, line: str) -> None:
        self.event(line)


class Screen:
    """The Models and Endpoints, lines to paste into another terminal, and what happened last."""

    def __init__(
        self, console: Console, where: str, command: Sequence[str], clock: Callable[[], datetime.datetime]
    ) -> None:
        self._where = where
        self._command = command
        self._clock = clock
        self._events: collections.deque[str] = collections.deque(maxlen=_EVENTS)
        self._objects: Sequence[Object] = ()
        self._console = console
        # A screen of its own is drawn whole each time, whatever the size of the terminal is by then.
        self._live = Live(console=console, auto_refresh=False, screen=True)
        self._live.start()

    def event(self, line: str) -> None:
        self._events.appendleft(f"{self._clock().astimezone():%H:%M:%S}  {line}")
        self._draw()

    def state(self, objects: Sequence[Object]) -> None:
        self._objects = objects
        self._draw()

    def close(self, line: str) -> None:
        with _heard_or_not():
            self._live.stop()
            print(f"{self._where}\n{line}", flush=True)

    def _draw(self) -> None:
        with _heard_or_not():
            width = self._console.width
            shown = page(self._where, self._command, self._objects, self._events, self._clock(), width)
            self._live.update(shown, refresh=True)


def page(
    where: str,
    command: Sequence[str],
    objects: Sequence[Object],
    events: Sequence[str],
    now: datetime.datetime,
    width: int,
) -> RenderableType:
    """The whole screen, for a terminal of ``width`` columns; ``command`` is how ``penstock`` is called."""
    parts: list[RenderableType] = [Text(where, style="bold")]
    for kind in ("Model", "Endpoint"):
        found = [o for o in objects if o["kind"] == kind]
        if found or kind == "Model":
            parts.append(_table(kind, found, now, width))
    for object_ in objects:
        ready = show.condition(object_, "Ready")
        if ready and (ready["status"] != "True" or ready["reason"] != "Serving"):
            parts.append(Text(f"{object_['metadata']['name']}: {_message(object_)}", style="yellow"))
    serving = next((o for o in objects if show.condition(o, "Ready").get("status") == "True"), None)
    if serving is not None:
        name, namespace = serving["metadata"]["name"], serving["metadata"]["namespace"]
        asked = name if namespace == "default" else f"{namespace}/{name}"
        words = [*command, f"infer {asked} --input FILE"]
        hint = " ".join(words)
        if len(hint) > width:  # in lines that a shell takes for one
            hint = " \\\n  ".join(words)
        parts += [Text(""), *(Text(line, style="cyan") for line in (hint, f"curl {serving['status']['url']}"))]
    parts.append(Text("Ctrl-C ends everything; what was applied is kept.", style="dim"))
    parts += [Text(line, style="dim") for line in events]
    return Group(*parts)


def _table(kind: str, objects: Sequence[Object], now: datetime.datetime, width: int) -> Table:
    head, *lines = [list(row) for row in show.rows(kind, objects, now, wide=False)]
    for line, object_ in zip(lines, objects, strict=True):
        if not show.condition(object_, "Ready"):
            line[head.index("READY")] = "starting"
    columns = dict(zip(head, zip(head, *lines, strict=True), strict=True))
    for name in _DROPPED_FIRST:
        if sum(max(map(len, cells)) + _GAP for cells in columns.values()) - 1 > width:
            columns.pop(name, None)
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True)
    for cells in list(zip(*columns.values(), strict=True))[1:]:
        table.add_row(*(cell or "-" for cell in cells))
    return table


def command(typed: str, folder: pathlib.Path, environment: Mapping[str, str]) -> list[str]:
    """How another terminal calls the ``penstock`` that was started as ``typed``, in words of the shell.

    What it finds on its PATH needs no path, and the usual data directory need not be said.
    """
    path, found = pathlib.Path(typed), shutil.which("penstock", path=environment.get("PATH"))
    on_path = path.name != "penstock" or (found is not None and path.absolute() == pathlib.Path(found).absolute())
    usual = datadir.default({name: value for name, value in environment.items() if name != "PENSTOCK_DATA_DIR"})
    place = [] if folder == usual else [f"PENSTOCK_DATA_DIR={shlex.quote(str(folder))}"]
    return [*place, "penstock" if on_path else shlex.quote(typed)]


def choose(where: str, command: Sequence[str], clock: Callable[[], datetime.datetime]) -> View:
    """The screen on a terminal, lines elsewhere."""
    console = Console()
    if console.is_terminal and sys.stdout.isatty():
        return Screen(console, where, command, clock)
    print(where, flush=True)
    return Lines()


@contextlib.contextmanager
def _heard_or_not() -> Iterator[None]:
    try:
        yield
    except OSError:
        # Whoever read has gone, or the terminal is closed; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
