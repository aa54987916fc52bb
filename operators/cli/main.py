"""``penstock`` and ``kubectl penstock``: the commands, their errors as a line and an exit code.

Commands import what they need when they run, so that ``--help`` and ``get`` do not wait for what they do not
use. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from operators.api.errors import OperatorError
from operators.cli import connecting, datadir, experiments, importing, rollouts, verbs

if TYPE_CHECKING:
    from operators.runtime.webhook import Receiver

app = typer.Typer(
    help="Serve models: one YAML, from model to answers, on a laptop or in a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

WebhookUrl = Annotated[
    str,
    typer.Option(
        "--webhook-url",
        metavar="URL",
        help="Who is told of every step and end of a rollout, as CloudEvents; with PENSTOCK_WEBHOOK_TOKEN as bearer.",
        show_default="nobody",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def up(
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE…]", help="YAML files to apply first.")] = None,
    data_dir: Annotated[
        pathlib.Path | None,
        typer.Option(help="Directory to keep objects, models and logs in.", show_default=connecting.DATA_DIR),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of REST.", min=1, max=65535)] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.", min=1, max=65535)] = 9000,
    webhook_url: WebhookUrl = "",
) -> None:
    """Run everything on this machine, in the foreground: control plane, router and model servers."""
    from operators.cli import up as running

    folder = data_dir.absolute() if data_dir else datadir.default(os.environ)
    running.main(running.Options(folder, host, port, grpc_port, _receiver(webhook_url)), files or [])


@app.command()
def down(data_dir: connecting.DataDir = None) -> None:
    """End a running `penstock up`, or what a crashed one left running."""
    from operators.cli import up as running

    print(running.down(data_dir.absolute() if data_dir else datadir.default(os.environ)))


verbs.add_to(app)
app.add_typer(rollouts.app, name="rollout")
app.add_typer(importing.app, name="import")
app.command()(experiments.experiment)


@app.command(context_settings=_PASSED_ON)
def serve(ctx: typer.Context) -> None:
    """Run the model server alone: serve PATH…"""
    _serving("serve", ctx.args)


@app.command(context_settings=_PASSED_ON)
def triton(ctx: typer.Context) -> None:
    """Run models behind Triton's server: triton PATH."""
    _serving("triton", ctx.args)


@app.command(context_settings=_PASSED_ON)
def conformance(ctx: typer.Context) -> None:
    """Say what a running server can do, and what it cannot: conformance URL."""
    _serving("conformance", ctx.args)


@app.command(context_settings=_PASSED_ON)
def rayserve(ctx: typer.Context) -> None:
    """Run one model behind Ray Serve: rayserve PATH."""
    _serving("rayserve", ctx.args)


@app.command(context_settings=_PASSED_ON)
def fetch(ctx: typer.Context) -> None:
    """Fetch an artifact by its URI and digest: fetch --uri URI --to DIR."""
    _serving("fetch", ctx.args)


@app.command()
def build(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML file with a Model, or - for standard input.")],
    name: Annotated[str | None, typer.Option(help="Which Model, where the file has several.")] = None,
    store: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder that keeps what was made; what is there is not made again.", show_default=connecting.DATA_DIR
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="json.")] = None,
) -> None:
    """Make a Model's variants here, measure them, and say which may serve and why; without any server."""
    from operators.cli import build as building

    if output not in (None, "json"):
        raise typer.BadParameter(f"--output {output}: give json, or leave it out for a table")
    folder = store.absolute() if store else datadir.default(os.environ) / "builds"
    building.main(file, name, folder, as_json=output == "json")


@app.command()
def bundle(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML file with a Model, or - for standard input.")],
    target: Annotated[str, typer.Option(help="linux/arm64 or linux/amd64.")],
    output: Annotated[
        pathlib.Path | None,
        typer.Option("--output", "-o", help="Folder or .tar.gz to write.", show_default="MODEL-OS-ARCH.tar.gz"),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which one.", show_default="the best that is as good on every processor")
    ] = None,
    python: Annotated[str, typer.Option(help="Version of the Python that the device has.")] = "3.11",
    name: Annotated[str | None, typer.Option(help="Which Model, where the file has several.")] = None,
    store: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder that keeps what a build made.", show_default=connecting.DATA_DIR),
    ] = None,
) -> None:
    """Pack one variant of a Model with its server, for a device without Kubernetes: a folder with a systemd unit."""
    from operators.cli import bundle as bundling

    if target not in bundling.TARGETS:
        raise typer.BadParameter(f"{target!r}; choose {' or '.join(bundling.TARGETS)}", param_hint="--target")
    folder = store.absolute() if store else datadir.default(os.environ) / "builds"
    print(bundling.main(bundling.Asked(file, name, variant, target, python, output, folder)))


@app.command()
def crds(
    folder: Annotated[pathlib.Path, typer.Argument()] = pathlib.Path("manifests/crds"),
    check: Annotated[bool, typer.Option("--check", help="Fail when the written ones are out of date.")] = False,
) -> None:
    """Write the custom resource definitions into a folder."""
    from operators.cli import crds as definitions

    if not check:
        definitions.write(folder)
    elif stale := definitions.stale(folder):
        raise OperatorError(f"{folder}: out of date: {', '.join(stale)}; run `penstock crds`")


@app.command()
def operator(
    kubeconfig: Annotated[
        str | None, typer.Option(help="Cluster to operate.", show_default="the pod's service account")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Watch only this one.", show_default="all")
    ] = None,
    lease_namespace: Annotated[
        str, typer.Option(help="Namespace of the Lease that elects one of several operators.")
    ] = "penstock-system",
    router_namespace: Annotated[
        str | None, typer.Option(help="Namespace of the router and its reports.", show_default="the Lease's")
    ] = None,
    image: Annotated[str, typer.Option(help="Image of the built-in model server.")] = "penstock-serve:latest",
    triton_image: Annotated[str, typer.Option(help="Image of the runtime triton.")] = "penstock-triton:latest",
    router_url: Annotated[
        str | None,
        typer.Option(
            help="Where clients reach the router; models' URLs begin with it. With --gateway: until its status says.",
            show_default="http://penstock-router.penstock-system",
        ),
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME of a Gateway (Gateway API) that carries the traffic.", show_default="Penstock's router"
        ),
    ] = None,
    network_policies: Annotated[
        bool, typer.Option("--network-policies/--no-network-policies", help="Let only the router reach model pods.")
    ] = True,
    allow_namespace: Annotated[
        list[str] | None,
        typer.Option(help="Namespace whose pods may reach model pods, too: a Prometheus. Again for each."),
    ] = None,
    cache_url: Annotated[
        str | None,
        typer.Option(help="Where pods find their node's cache of artifacts, http://HOST:PORT.", show_default="none"),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            help="Artifact store that builds of variants publish to, s3://BUCKET/PREFIX.",
            envvar="PENSTOCK_STORE",
            show_default="none, and nothing is built",
        ),
    ] = "",
    builder_image: Annotated[str, typer.Option(help="Image of the builder.")] = "penstock-builder:latest",
    builder: Annotated[
        str, typer.Option(help="What builders' pods get, as JSON: resources, deadlineSeconds, nodeSelector, …")
    ] = "{}",
    webhook_url: WebhookUrl = "",
    health_host: Annotated[str, typer.Option(help="Address of /healthz and /readyz.")] = "0.0.0.0",
    health_port: Annotated[int, typer.Option(help="Port of /healthz and /readyz; 0: any.", min=0)] = 8081,
) -> None:
    """Run the operator of a cluster."""
    from operators.cli import operator as cluster_operator

    settings = cluster_operator.Settings(
        kubeconfig,
        context,
        namespace,
        lease_namespace,
        router_namespace,
        image,
        triton_image,
        router_url,
        gateway,
        network_policies,
        tuple(allow_namespace or ()),
        cache_url,
        store,
        builder_image,
        cluster_operator.builder(builder),
        _receiver(webhook_url),
        health_host,
        health_port,
    )
    raise typer.Exit(cluster_operator.run(settings))


@app.command()
def router(
    pod: Annotated[str, typer.Option(help="Name of the pod this runs in; its report is called so.", envvar="POD_NAME")],
    pod_namespace: Annotated[str, typer.Option(help="Namespace of the pod.", envvar="POD_NAMESPACE")],
    pod_uid: Annotated[str, typer.Option(help="UID of the pod, which owns the report.", envvar="POD_UID")],
    pod_ip: Annotated[
        str, typer.Option(help="Its address, to which model servers send copies of requests.", envvar="POD_IP")
    ] = "",
    kubeconfig: Annotated[
        str | None, typer.Option(help="Cluster to route for.", show_default="the pod's service account")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Route for this one only.", show_default="all")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "0.0.0.0",
    http_port: Annotated[int, typer.Option(help="Port of REST.", min=1, max=65535)] = 8080,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC.", min=1, max=65535)] = 9000,
    tls_dir: Annotated[
        pathlib.Path | None, typer.Option(help="Folder with tls.crt and tls.key: REST and gRPC with TLS, too.")
    ] = None,
    https_port: Annotated[int, typer.Option(help="Port of both with TLS.", min=1, max=65535)] = 8443,
    folder: Annotated[pathlib.Path, typer.Option(help="Folder for HAProxy's files and the catalog's index.")] = (
        pathlib.Path("/run/penstock")
    ),
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics, for the cluster's own eyes.", min=1)] = 8083,
    catalog_port: Annotated[
        int, typer.Option(help="Port of 127.0.0.1 on which the catalog answers for what has no server; 0: none.", min=0)
    ] = 8082,
    health_host: Annotated[str, typer.Option(help="Address of /healthz and /readyz.")] = "0.0.0.0",
    health_port: Annotated[int, typer.Option(help="Port of /healthz and /readyz; 0: any.", min=0)] = 8081,
) -> None:
    """Run one replica of the router of a cluster."""
    from operators.cli import router as cluster_router

    settings = cluster_router.Settings(
        pod,
        pod_namespace,
        pod_uid,
        pod_ip,
        kubeconfig,
        context,
        namespace,
        host,
        http_port,
        grpc_port,
        tls_dir,
        https_port,
        metrics_port,
        folder,
        catalog_port,
        health_host,
        health_port,
    )
    raise typer.Exit(cluster_router.run(settings))


@app.command()
def version() -> None:
    """Show the version."""
    import importlib.metadata

    print(importlib.metadata.version("penstock"))


def main() -> None:
    """``penstock``."""
    _run("penstock", cluster=False)


def kubectl_plugin() -> None:
    """``kubectl penstock``: the same verbs, against the cluster."""
    _run("kubectl penstock", cluster=True)


def _run(name: str, *, cluster: bool) -> None:
    try:
        app(prog_name=name, obj=cluster)
    except OperatorError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _receiver(url: str) -> Receiver | None:
    from operators.runtime.webhook import Receiver

    return Receiver(url, os.environ.get("PENSTOCK_WEBHOOK_TOKEN", "").strip()) if url else None


def _serving(command: str, arguments: list[str]) -> None:
    os.execv(sys.executable, [sys.executable, "-m", "serving", command, *arguments])


if __name__ == "__main__":
    main()
