"""What ``penstock up`` shows: one line a change of state, and on a terminal the state itself, kept current."""

from __future__ import annotations

import collections
import datetime
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import rich.box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from operators.api.plan import Key
from operators.cli import show
from operators.cli.client import Object

_EVENTS = 8


class View(Protocol):
    """Where ``penstock up`` tells what happens; two implementations, for terminals and for everything else."""

    def event(self, line: str) -> None:
        """Something changed."""

    def state(self, models: Sequence[Object]) -> None:
        """What all Models are like now."""

    def close(self) -> None:
        """Nothing more will be told."""


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
        return f"Ready: {url}" + (f" (revision {revision})" if revision else "")
    word = "Ready" if ready["status"] == "True" else "not ready"
    return f"{word} ({ready['reason']}): {ready['message']}"


class Lines:
    """A line for each change, for logs and pipes."""

    def event(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # Whoever read has gone; models are served all the same, and there is nothing left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def state(self, models: Sequence[Object]) -> None:
        pass

    def close(self) -> None:
        pass


class Screen:
    """The Models, what happened last, and lines to paste into another terminal."""

    def __init__(self, console: Console, where: str, clock: Callable[[], datetime.datetime]) -> None:
        self._where = where
        self._clock = clock
        self._events: collections.deque[str] = collections.deque(maxlen=_EVENTS)
        self._models: Sequence[Object] = ()
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def event(self, line: str) -> None:
        self._events.append(f"{self._clock().astimezone():%H:%M:%S}  {line}")
        self._draw()

    def state(self, models: Sequence[Object]) -> None:
        self._models = models
        self._draw()

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> None:
        self._live.update(page(self._where, self._models, self._events, self._clock()), refresh=True)


def page(where: str, models: Sequence[Object], events: Sequence[str], now: datetime.datetime) -> RenderableType:
    """The whole screen."""
    head, *lines = show.rows("Model", models, now, wide=False)
    table = Table(*head, box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for line in lines:
        table.add_row(*(cell or "-" for cell in line))
    parts: list[RenderableType] = [Text(where, style="bold"), table]
    for model in models:
        ready = show.condition(model, "Ready")
        if ready and (ready["status"] != "True" or ready["reason"] != "Serving"):
            parts.append(Text(f"{model['metadata']['name']}: {ready['message']}", style="yellow"))
    parts += [Text(line, style="dim") for line in events]
    serving = next((m for m in models if show.condition(m, "Ready").get("status") == "True"), None)
    if serving is not None:
        name, url = serving["metadata"]["name"], serving["status"]["url"]
        parts += [
            Text(""),
            Text(f"penstock infer {name} --input FILE", style="cyan"),
            Text(f"curl {url}", style="cyan"),
        ]
    parts.append(Text("Ctrl-C ends everything; what was applied is kept.", style="dim"))
    return Group(*parts)


def choose(where: str, clock: Callable[[], datetime.datetime]) -> View:
    """The screen on a terminal, lines elsewhere."""
    console = Console()
    if console.is_terminal and sys.stdout.isatty():
        return Screen(console, where, clock)
    print(where, flush=True)
    return Lines()
