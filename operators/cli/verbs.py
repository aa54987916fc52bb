"""The verbs on objects, the same for ``penstock up`` and for a cluster."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operators.api.errors import NotFound, OperatorError
from operators.cli import datadir, kinds, show
from operators.cli.client import Client, NothingRuns, Object, apply
from operators.cli.connecting import Context, DataDir, Kubeconfig, Namespace, connect

if TYPE_CHECKING:
    from operators.cli.manifests import Manifest

WATCH_S = 1.0
Files = Annotated[list[str] | None, typer.Option("--file", "-f", help="YAML file, folder of them, or -.")]
KindWord = Annotated[str, typer.Argument(metavar="KIND", help="models, endpoints or runtimes.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="NAME or NAMESPACE/NAME.")]
Output = Annotated[str, typer.Option("--output", "-o", help="wide, json or yaml.")]


def add_to(app: typer.Typer) -> None:
    """Make the verbs commands of ``app``."""
    # Files without -f are taken as well, to be told of.
    app.command("apply", context_settings={"allow_extra_args": True})(apply_)
    for verb in (get, describe, logs, infer, delete):
        app.command(verb.__name__)(verb)


def apply_(
    ctx: typer.Context,
    file: Files = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="PENSTOCK_STORE",
            help="Where local files are uploaded for a cluster, such as s3://BUCKET/PREFIX.",
            show_default="what the cluster's ConfigMap `penstock` says",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied; change nothing.")] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Create or change objects as YAML files say; for a cluster, upload the local files that they name."""
    from operators.cli import manifests

    if ctx.args:
        raise typer.BadParameter(f"write -f before each file: apply {' '.join(f'-f {word}' for word in ctx.args)}")
    client = connect(ctx, context, kubeconfig, namespace, data_dir)
    place = functools.cache(lambda: store or client.store())
    failed = False
    for found in manifests.load(_given(file), client.namespace or "default"):
        try:
            manifest = found if client.reads_files else _uploaded(found, place, dry_run)
            if dry_run:
                print(f"---\n{_yaml([manifest.data])}", end="")
                continue
            print(f"{manifest.kind.plural}/{manifest.name} {apply(client, manifest.data)}")
        except OperatorError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def delete(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KIND NAME…", help="models, endpoints or runtimes, and names.")
    ] = None,
    file: Files = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Delete objects, with all that was made for them."""
    from operators.cli import manifests

    named = _named(words or [])
    if bool(named) == bool(file):
        raise typer.BadParameter("give either KIND and NAME, or -f FILE")
    client = connect(ctx, context, kubeconfig, namespace, data_dir)
    meant = [(which, *split(name, client)) for which, name in named]
    if not meant:
        meant = manifests.names(_given(file), client.namespace or "default")
    failed = False
    for which, place, called in meant:
        try:
            client.delete(which, place, called)
            print(f"{which.plural}/{called} deleted")
        except OperatorError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def get(
    ctx: typer.Context,
    kind: KindWord,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="NAME or NAMESPACE/NAME; else all.")] = None,
    output: Output = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show every change.")] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Show objects, a line each."""
    if output not in ("", "wide", "json", "yaml"):
        raise typer.BadParameter(f"{output!r}; choose wide, json or yaml", param_hint="-o")
    named = _named([kind] if name is None else [kind, name])
    which, name = named[0] if named else (_kind(kind), None)
    client = connect(ctx, context, kubeconfig, namespace, data_dir)
    pause, seen, head = threading.Event(), dict[str, Object](), True
    while True:
        try:
            found = client.list(which, client.namespace) if name is None else [_get(client, which, name)]
        except NotFound:
            if head:
                raise
            found = []
        fresh = [o for o in found if seen.get(o["metadata"]["uid"]) != o]
        for gone in seen.keys() - {o["metadata"]["uid"] for o in found}:
            line = f"{which.plural}/{seen[gone]['metadata']['name']} deleted"
            print(line, file=sys.stderr if output in ("json", "yaml") else sys.stdout, flush=True)
        seen = {o["metadata"]["uid"]: o for o in found}
        if fresh or head:
            text = _rendered(which, fresh, output, one=name is not None)
            print(text if head or output in ("json", "yaml") else text.partition("\n")[2], end="", flush=True)
            head = False
        if not watch:
            return
        pause.wait(WATCH_S)


def describe(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="[KIND] NAME", help="A Model or an Endpoint; of others the kind as well.")
    ],
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Show one object with its conditions, variants and revisions, and why each is as it is."""
    is_bare = len(words) == 1 and kinds.find(words[0].partition("/")[0]) is None
    named = [] if is_bare else _named(words)
    if not is_bare and len(named) != 1:
        raise typer.BadParameter(f"give one name as well: describe {words[0]} NAME", param_hint="NAME")
    client = connect(ctx, context, kubeconfig, namespace, data_dir)
    object_ = _served(client, words[0]) if is_bare else _get(client, *named[0])
    print(show.describe(object_, _now()), end="")


def logs(
    ctx: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Show what the servers of a Model wrote."""
    try:
        client = connect(ctx, context, kubeconfig, namespace, data_dir)
    except NothingRuns:
        # What the servers of an earlier run wrote is still there.
        folder = data_dir.absolute() if data_dir else datadir.default(os.environ)
        if not _print_stored(folder, name, follow):
            raise
        return
    served = _served(client, name)
    if served["kind"] == "Endpoint":
        models = ", ".join(dict.fromkeys(arm["model"] for arm in served["spec"]["arms"]))
        raise OperatorError(f"endpoint {name} has no logs; read those of its models with `penstock logs`: {models}")
    for piece in client.logs(*split(name, client), follow):
        print(piece, end="", flush=True)


def infer(
    ctx: typer.Context,
    name: Name,
    file: Annotated[
        pathlib.Path | None, typer.Option("--input", help="Image, .npy, .npz or .json file.", show_default=False)
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    url: Annotated[
        str | None, typer.Option(help="URL of the model, up to /v2/models/NAME, when not the one of its status.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.", min=0.001, max=86400)] = 30.0,
    draw: Annotated[
        pathlib.Path | None, typer.Option(help="Write the image there, with what a detector found drawn on it.")
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
    data_dir: DataDir = None,
) -> None:
    """Send one request to a Model or an Endpoint and show the answer."""
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}; choose table or json", param_hint="-o")
    try:
        from operators.cli import infer as inference
    except ImportError as error:
        raise OperatorError(f"`penstock infer` needs {error.name}: install penstock[local]") from error
    client = connect(ctx, context, kubeconfig, namespace, data_dir)
    asked = _served(client, name)
    address = inference.model_url(url) if url else asked.get("status", {}).get("url")
    if not address:
        why = show.condition(asked, "Ready").get("message", "it was not looked at yet")
        raise OperatorError(f"{asked['kind'].lower()} {name} has no URL: {why}")
    contract = _contract(_first_model(client, asked))
    way = None if url else client.way_to(address)
    if file is None:
        taken = inference.taken(address, contract, timeout, way)
        raise OperatorError(f"infer {name}: give what it is to answer: `penstock infer {name} --input FILE`, {taken}")
    answer = inference.ask(address, asked["metadata"]["name"], contract, file, timeout, way)
    if answer.rows > 1:
        print(f"first of {answer.rows} rows; give a nested list as .json to send several", file=sys.stderr)
    there = inference.found(answer, contract)
    scored = inference.scores(answer, contract) if there is None else []
    if draw is not None:
        from operators.cli import drawing

        if there is None:
            raise OperatorError(f"--draw {draw}: the Model finds nothing to draw; set spec.contract.output.detections")
        drawing.draw(file, there, draw)
    if output == "json":
        print(show.as_json(inference.as_data(answer, scored, there)))
    else:
        print(inference.as_text(answer, scored, there), end="")


def _uploaded(manifest: Manifest, store: Callable[[], str | None], dry_run: bool) -> Manifest:
    """``manifest`` with its local files in the artifact store, where they are put unless it is a dry run."""
    from operators.cli import artifacts

    moved, uploads = artifacts.relocated(manifest, store)
    for upload in uploads:
        if dry_run:
            print(f"# {upload.path} would be uploaded to {upload.uri}")
        elif sent := artifacts.send(upload, show.sending):
            print(f"{upload.path.name} uploaded, {show.amount(sent)}: {upload.uri}")
        else:
            print(f"{upload.path.name} is already there: {upload.uri}")
    return moved


def _print_stored(folder: pathlib.Path, name: str, follow: bool) -> bool:
    """Print the log files of a Model, if there are any."""
    import asyncio

    from operators.cli import logs as stored

    namespace, _, model = name.rpartition("/")
    place = folder / "logs" / (namespace or "default") / model

    def files() -> list[pathlib.Path]:
        return sorted(place.glob("*.log"), key=lambda file: file.stat().st_mtime)

    async def show_all() -> None:
        async for piece in stored.stream(files, follow):
            print(piece.decode(errors="replace"), end="", flush=True)

    if not files():
        return False
    asyncio.run(show_all())
    return True


def _get(client: Client, kind: kinds.Kind, name: str) -> Object:
    try:
        return client.get(kind, *split(name, client))
    except NotFound:
        from operators.planning import runtimes

        if kind.kind == "ServingRuntime" and name in runtimes.local(""):
            raise NotFound(f"ServingRuntime {name} is built in: Models use it without there being an object") from None
        raise


def _served(client: Client, name: str) -> Object:
    """The Model of this name, else the Endpoint."""
    namespace, bare = split(name, client)
    for kind in ("Model", "Endpoint"):
        with contextlib.suppress(NotFound):
            return client.get(kinds.of(kind), namespace, bare) | {"kind": kind}
    raise NotFound(
        f"neither a Model nor an Endpoint {namespace}/{bare} exists; "
        "`penstock get models` and `penstock get endpoints` list those that do"
    )


def _first_model(client: Client, served: Object) -> Object:
    """The Model itself, or that of an Endpoint's first arm: all its arms answer the same question."""
    if served["kind"] == "Model":
        return served
    return client.get(kinds.of("Model"), served["metadata"]["namespace"], served["spec"]["arms"][0]["model"])


def _contract(model: dict[str, Any]) -> dict[str, Any]:
    """That of the revision which serves; the spec may already speak of the next one."""
    status = model.get("status", {})
    for revision in status.get("revisions", []):
        if revision["name"] == status.get("revision"):
            return revision["recipe"].get("contract") or {}
    return model["spec"].get("contract") or {}


def _given(files: list[str] | None) -> list[str]:
    if not files:
        raise typer.BadParameter("give at least one", param_hint="-f")
    return files


def _kind(word: str) -> kinds.Kind:
    found = kinds.find(word)
    if found is None:
        raise typer.BadParameter(f"{word!r}; choose models, endpoints or runtimes, then a name", param_hint="KIND")
    return found


def _named(words: list[str]) -> list[tuple[kinds.Kind, str]]:
    """Kinds and names in ``KIND NAME…`` or ``KIND/NAME…``."""
    if words and "/" not in words[0]:
        return [(_kind(words[0]), name) for name in words[1:]]
    return [(_kind(kind), name) for kind, _, name in (word.partition("/") for word in words)]


def split(name: str, client: Client) -> tuple[str, str]:
    """Namespace and name in NAME or NAMESPACE/NAME."""
    namespace, _, bare = name.rpartition("/")
    return namespace or client.namespace or "default", bare


def _rendered(kind: kinds.Kind, found: list[Object], output: str, *, one: bool) -> str:
    if output == "json":
        return show.as_json(found[0] if one else {"apiVersion": "v1", "kind": "List", "items": found}) + "\n"
    if output == "yaml":
        return _yaml(found)
    if not found:
        return f"no {kind.plural} here; `penstock apply -f FILE` makes one\n"
    return show.table(show.rows(kind.kind, found, _now(), output == "wide"))


def _yaml(objects: list[Object]) -> str:
    import yaml

    return yaml.safe_dump_all(objects, sort_keys=False)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
