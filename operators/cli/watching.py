"""One object on the screen: once, or kept current; for people, for logs and for programs."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from operators.cli import show
from operators.cli.client import Object

if TYPE_CHECKING:
    from rich.console import RenderableType

POLL_S = 1.0


def check(output: str) -> None:
    """Raises ``BadParameter`` where ``-o`` names no form."""
    if output not in ("", "json"):
        raise typer.BadParameter(f"{output!r}; give json, or leave it out", param_hint="-o")


@contextlib.contextmanager
def shown(
    output: str,
    watch: bool,
    data: Callable[[Object], Any],
    page: Callable[[Object, datetime.datetime], RenderableType],
    line: Callable[[Object], str],
) -> Iterator[Callable[[Object], None]]:
    """Where an object is shown: a page, a page kept current, or a line or document for each change."""
    from rich.console import Console

    console, told = Console(highlight=False), [""]

    def changed(text: str) -> None:
        if text != told[0]:
            told[0] = text
            print(text, flush=True)

    def now() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    if output == "json":
        yield lambda object_: changed(show.as_json(data(object_)))
    elif not watch:
        yield lambda object_: console.print(page(object_, now()))
    elif not console.is_terminal:
        yield lambda object_: changed(line(object_))
    else:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            yield lambda object_: live.update(page(object_, now()), refresh=True)
