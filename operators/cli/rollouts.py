"""``penstock rollout``: look at a rollout, hold it, let it go on, end it.

A command is a part of the object: an annotation that names the rollout it means, so that one that arrives late or
twice does nothing, and whoever reads the object sees what was asked. A pause means whatever rolls out until it is
taken back. Commands are no part of the spec: applying the same YAML again leaves them as they are.
"""

from __future__ import annotations

import datetime
import pathlib
import threading
from typing import Annotated

import typer

from operators.api.commands import ABORT, ONGOING, PAUSED, PROMOTE, RETRY
from operators.api.errors import OperatorError
from operators.cli import connecting, kinds, verbs, watching
from operators.cli.client import Client, Object

_MODEL = kinds.of("Model")

app = typer.Typer(help="Look at a rollout by steps, hold it, let it go on, end it.", no_args_is_help=True)


@app.command()
@connecting.connected
def status(
    client: Client,
    name: verbs.Name,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until it ends; exit code 0: promoted, 1: it was not.")
    ] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="json: weights in percent, steps from 1.")] = "",
) -> None:
    """Show who has which share, the steps, the evidence, and what comes next."""
    watching.check(output)
    pause = threading.Event()
    from operators.cli import progress

    with watching.shown(output, watch, progress.as_data, progress.page, progress.line) as show_:
        while True:
            model = _model(client, name)
            show_(model)
            if not watch:
                return
            if (ended := _ended(model)) is not None:
                raise typer.Exit(ended)
            pause.wait(watching.POLL_S)


@app.command()
@connecting.connected
def report(
    client: Client,
    name: verbs.Name,
    output: Annotated[
        pathlib.Path | None, typer.Option("--output", "-o", help="The file.", show_default="NAME-REVISION.html")
    ] = None,
) -> None:
    """Write how the latest rollout went, or goes, as one HTML page."""
    from operators.cli import rollout_page

    model = _model(client, name)
    rollout, called = model.get("status", {}).get("rollout"), model["metadata"]["name"]
    if not rollout:
        raise OperatorError(f"model {called}: it had no rollout by steps, so there is nothing to report")
    file = output or pathlib.Path(f"{called}-{rollout['revision']}.html")
    try:
        file.write_text(rollout_page.page(model, _now()), encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"-o {file}: {error.strerror}; name another file") from error
    print(file)


@app.command()
@connecting.connected
def pause(client: Client, name: verbs.Name) -> None:
    """Stay in the present step, or let none begin; a revision that fails is rolled back all the same."""
    model = _model(client, name)
    _stepped(model)
    goes_on = (model.get("status", {}).get("rollout") or {}).get("state") in ONGOING
    since = _now().isoformat(timespec="seconds").replace("+00:00", "Z")
    told = "paused" if goes_on else f"paused: none goes on, and the next one waits for `penstock rollout resume {name}`"
    _change(client, name, {"metadata": {"annotations": {PAUSED: since}}}, told)


@app.command()
@connecting.connected
def resume(client: Client, name: verbs.Name) -> None:
    """Let a paused rollout go on."""
    model = _model(client, name)
    _stepped(model)
    change: Object = {"metadata": {"annotations": {PAUSED: None}}}
    told = "goes on"
    if model["spec"]["rollout"].get("paused"):
        change["spec"] = {"rollout": {"paused": None}}
        told += "; take spec.rollout.paused out of your YAML, or its next apply pauses it again"
    _change(client, name, change, told)


@app.command()
@connecting.connected
def promote(client: Client, name: verbs.Name) -> None:
    """Move all traffic to the new revision as soon as all its replicas are ready, whatever the evidence says."""
    meant = _meant(_model(client, name), ONGOING, "promote")
    _change(client, name, _annotations(PROMOTE, meant), "is to be promoted")


@app.command()
@connecting.connected
def abort(client: Client, name: verbs.Name) -> None:
    """Move all traffic back; the new revision is not tried again before the spec asks for another one."""
    meant = _meant(_model(client, name), ONGOING, "abort")
    _change(client, name, _annotations(ABORT, meant), "is to be rolled back")


@app.command()
@connecting.connected
def retry(client: Client, name: verbs.Name) -> None:
    """Try once more what was rolled back, from the first step."""
    meant = _meant(_model(client, name), ("RolledBack",), "retry")
    _change(client, name, _annotations(RETRY, meant), "is to be tried again")


def _model(client: Client, name: str) -> Object:
    return client.get(_MODEL, *verbs.split(name, client))


def _stepped(model: Object) -> None:
    if not model["spec"].get("rollout"):
        name = model["metadata"]["name"]
        raise OperatorError(
            f"model {name}: its spec has no rollout, so there is nothing to hold; add spec.rollout.steps, such as "
            "[{weight: 10, for: 5m}]"
        )


def _meant(model: Object, states: tuple[str, ...], verb: str) -> str:
    """The rollout that a command means, as an annotation says it."""
    rollout = model.get("status", {}).get("rollout") or {}
    if rollout.get("state") not in states:
        name, state = model["metadata"]["name"], rollout.get("state")
        now = (
            f"its last rollout, of revision {rollout['revision']}, is {state}"
            if state
            else "it had no rollout by steps"
        )
        raise OperatorError(f"model {name}: there is nothing to {verb}: {now}; see `penstock rollout status {name}`")
    return f"{rollout['revision']}@{rollout['began']}"


def _annotations(which: str, meant: str) -> Object:
    """One command at a time: what was said before is taken back."""
    said = {annotation: meant if annotation == which else None for annotation in (PROMOTE, ABORT, RETRY)}
    return {"metadata": {"annotations": said}}


def _change(client: Client, name: str, change: Object, told: str) -> None:
    client.merge(_MODEL, *verbs.split(name, client), change)
    print(f"rollout of model {name} {told}")


def _ended(model: Object) -> int | None:
    """Exit code of a rollout that is over; None while it goes on or the spec was not looked at yet."""
    found = model.get("status", {})
    rollout = found.get("rollout") or {}
    if found.get("observedGeneration") != model["metadata"].get("generation") or rollout.get("state") in ONGOING:
        return None
    return 1 if rollout.get("state") in ("RolledBack", "Withdrawn") else 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
