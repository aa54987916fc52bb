"""``penstock import``: objects of other platforms, printed as objects of Penstock's."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from operators.api.errors import InvalidObject, OperatorError
from operators.cli import datadir
from operators.cli.connecting import Context, Kubeconfig, Namespace
from operators.cli.kinds import Kind

if TYPE_CHECKING:
    from operators.cli.inference_services import Imported

Object = dict[str, Any]

INFERENCE_SERVICE = Kind(
    "InferenceService", "inferenceservices", ("inferenceservice", "isvc"), prefix="/apis/serving.kserve.io/v1beta1"
)

app = typer.Typer(help="Print what objects of other platforms become; nothing is changed.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def inferenceservice(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which one; left out: all of the namespace.")] = None,
    file: Annotated[
        str | None,
        typer.Option("--filename", "-f", help="YAML file to read in place of a cluster; - is standard input."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="yaml or json.")] = "yaml",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    namespace: Namespace = None,
) -> None:
    """Print KServe's InferenceServices as Models, and say what of them has no counterpart."""
    from operators.cli import inference_services

    if output not in ("yaml", "json"):
        raise typer.BadParameter(f"{output!r}; choose yaml or json", param_hint="-o")
    found = _read(file) if file else _listed(context, kubeconfig, namespace, name)
    if name:
        found = [each for each in found if each.get("metadata", {}).get("name") == name]
    if not found:
        where = file or "this namespace"
        raise OperatorError(f"{where} has no InferenceService{f' {name}' if name else ''}; name a file, or another one")
    models = []
    for each in found:
        imported = _checked(inference_services.model(each))
        for line in imported.said:
            print(f"{each.get('metadata', {}).get('name')}: {line}", file=sys.stderr)
        if imported.model is not None:
            models.append(imported.model)
    _print(models, output)
    if len(models) < len(found):
        raise OperatorError(
            f"{len(found) - len(models)} of {len(found)} InferenceServices became no Model, as said above"
        )


def _checked(imported: Imported) -> Imported:
    """``imported``, without a Model that would be refused."""
    from operators.api.kinds import parse
    from operators.cli.inference_services import Imported

    if imported.model is None:
        return imported
    try:
        parse(imported.model)
    except InvalidObject as error:
        return Imported(None, (*imported.said, str(error)))
    return imported


def _read(file: str) -> list[Object]:
    import yaml

    try:
        text = sys.stdin.read() if file == "-" else pathlib.Path(file).read_text("utf-8")
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OperatorError(f"{file}: {error}; name a YAML file with InferenceServices") from error
    objects = [item for each in documents for item in (each.get("items", [each]) if "items" in each else [each])]
    return [each for each in objects if each.get("kind") == INFERENCE_SERVICE.kind]


def _listed(context: str | None, kubeconfig: str | None, namespace: str | None, name: str | None) -> list[Object]:
    from operators.cli.client import Target, choose

    client = choose(Target(datadir.default(os.environ), context, kubeconfig, namespace, cluster=True), os.environ)
    within = client.namespace
    return [client.get(INFERENCE_SERVICE, within or "", name)] if name else client.list(INFERENCE_SERVICE, within)


def _print(models: list[Object], output: str) -> None:
    if output == "json":
        import json

        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": models}, indent=2))
        return
    import yaml

    if models:
        print(yaml.safe_dump_all(models, sort_keys=False), end="")
