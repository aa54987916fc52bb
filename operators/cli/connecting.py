"""Which cluster or ``penstock up`` a command line means: the options for it, declared once."""

from __future__ import annotations

import functools
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from operators.cli import datadir
from operators.cli.client import Client, Target, choose

DATA_DIR = "PENSTOCK_DATA_DIR, or ~/.local/state/penstock"
"""What is meant where no --data-dir is given."""

Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig: act in a cluster.")]
Kubeconfig = Annotated[str | None, typer.Option("--kubeconfig", help="Kubeconfig file: act in a cluster.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace: act in a cluster.")]
DataDir = Annotated[
    pathlib.Path | None,
    typer.Option("--data-dir", help="Data directory of the `penstock up` to act on.", show_default=DATA_DIR),
]


def connect(
    ctx: typer.Context,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> Client:
    """Who the command line means; ``ctx.obj`` is true where it was called as a plugin of kubectl."""
    folder = data_dir.absolute() if data_dir else datadir.default(os.environ)
    target = Target(folder, context, kubeconfig, namespace, cluster=bool(ctx.obj), local=data_dir is not None)
    return choose(target, os.environ)


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, whose first argument is the client, as Typer takes it: with the options that say which, last."""
    shared = inspect.signature(connect, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *shared.values())]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        client = connect(**{name: given.pop(name) for name in shared})
        command(client, **given)

    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
