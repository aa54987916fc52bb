"""The command line of the serving side. The environment is read here and nowhere else."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from serving import contract
from serving.contract import Env, Exit
from serving.errors import ArtifactRefused, InvalidInput, ServingError

if TYPE_CHECKING:
    from serving.server import Listen

_LAST_WORDS_BYTES = 4096
"""What Kubernetes keeps of a termination message."""


def main(argv: Sequence[str], env: Mapping[str, str] = os.environ) -> int:
    """Runs one command and gives its exit code (``contract.Exit``)."""
    try:
        options, unknown = _parser(env).parse_known_args(argv)
        if unknown:
            options.command.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as stopped:
        return int(stopped.code or 0)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return int(options.run(options, env))
    except ServingError as error:
        sys.stderr.write(f"error: {error}\n")
        _last_words(env, str(error))
        return int(error.exit)


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock", description="Penstock's model server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve models over REST and gRPC")
    models = serve.add_argument_group("models")
    folder = env.get(Env.MODEL_DIR, contract.MODEL_DIR)
    models.add_argument("paths", nargs="*", type=_path, metavar="PATH", default=[Path(folder)],
                        help="model file, folder with one, folder of numbered versions, or folder of such models "
                        f"(default: {folder.replace('%', '%%')})")  # fmt: skip
    models.add_argument("--name", default=env.get(Env.MODEL), help="name of the model, where there is only one")
    listening = _listening(serve, env)
    listening.add_argument("--grpc-port", type=_port, metavar="PORT",
                           default=env.get(Env.GRPC_PORT, str(contract.GRPC_PORT)),
                           help="port for gRPC over HTTP/2; 0 takes a free one (default: %(default)s)")  # fmt: skip
    models.add_argument("--settings", metavar="JSON", default=env.get(Env.SETTINGS, "{}"),
                        help="said of all models, above what penstock.json in a model's folder says: "
                        '{"limits": {"maxPending": 128, "timeout": "30s"}}')  # fmt: skip
    models.add_argument("--memory-budget", type=_size, metavar="BYTES",
                        help="memory of all models together, as 2Gi; those asked longest ago make room and come back "
                        "when they are asked; without it all stay loaded")  # fmt: skip
    models.add_argument("--response-cache-bytes", type=_size_or_none, default="64Mi", metavar="BYTES",
                        help="kept answers of the models whose settings say that they may be kept ({\"cache\": true}); "
                        "0: none (default: %(default)s)")  # fmt: skip
    watching = serve.add_argument_group("watching")
    watching.add_argument("--log-requests", type=_log, metavar="RATE[:FILE]", default=env.get(Env.LOG_REQUESTS),
                          help="write a line of JSON for this share of requests (0.01: one in a hundred), and for "
                          "those that failed or took a second, to standard error or a file")  # fmt: skip
    processes = serve.add_argument_group("processes")
    processes.add_argument("--workers", type=_workers, default=1, metavar="N",
                           help="processes behind the same ports, each with all models; 'auto': one a CPU "
                           "(default: %(default)s)")  # fmt: skip
    processes.add_argument("--pin", action="store_true", help="give each worker CPUs of its own")
    serve.set_defaults(run=_serve, command=serve)

    triton = commands.add_parser("triton", help="serve a model, or a folder of them, by Triton's server")
    _given(triton, env, "http", "grpc", "metrics")
    triton.add_argument("--memory-budget", type=_size, metavar="BYTES",
                        help="what the models may take together; one that finds no room is refused")  # fmt: skip
    triton.set_defaults(run=_triton, command=triton)

    conformance = commands.add_parser("conformance", help="say what a running server can do, and what it cannot")
    conformance.add_argument("url", metavar="URL", help="of one of its models: http://HOST:PORT/v2/models/NAME")
    conformance.add_argument("--grpc", metavar="HOST:PORT", help="where it listens for gRPC; without it none is asked")
    conformance.add_argument("--metrics", metavar="URL", help="its metrics (default: /metrics where REST is)")
    conformance.add_argument("--input", type=Path, metavar="FILE",
                             help=".npz with some rows for each input (default: numbers drawn by chance)")  # fmt: skip
    conformance.add_argument("--timeout", type=_some_seconds, default=30.0, metavar="SECONDS",
                             help="for one answer (default: %(default)g)")  # fmt: skip
    conformance.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: table)")
    conformance.set_defaults(run=_conformance, command=conformance)

    ray = commands.add_parser("rayserve", help="serve one model by Ray Serve, over REST and gRPC")
    _given(ray, env, "http", "grpc")
    ray.set_defaults(run=_rayserve, command=ray)

    catalog = commands.add_parser("catalog", help="answer for models that have no server")
    catalog.add_argument("--index", type=Path, required=True, help="JSON file that lists the models")
    _listening(catalog, env)
    catalog.set_defaults(run=_catalog, command=catalog)

    fetch = commands.add_parser("fetch", help="copy a model to this machine and check its digest")
    fetch.add_argument("--uri", required=True, help="path, fsspec URI or oci:// artifact; a file or folder")
    fetch.add_argument("--digest", help="sha256:HEX that it must have")
    fetch.add_argument("--otherwise", type=_otherwise, metavar="VARIANT=URI@DIGEST",
                       help="variant to take where the processor has none of --for-cpu")  # fmt: skip
    fetch.add_argument("--for-cpu", type=lambda text: frozenset(text.split(",")), metavar="FEATURE,…",
                       default=frozenset(), help="features that --uri was proven with: avx512_vnni")  # fmt: skip
    where = fetch.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", type=Path, metavar="DIR", help="folder to copy into; new or empty")
    where.add_argument("--store", type=Path, metavar="DIR", help="folder in which a folder sha256-HEX is made")
    fetch.add_argument("--plain-http", metavar="HOST,…", default=env.get(Env.PLAIN_HTTP, ""),
                       help="OCI registries without TLS, apart from this machine's")  # fmt: skip
    fetch.add_argument("--cache", metavar="URL", default=env.get(Env.CACHE_URL),
                       help="cache to ask first and to fill: http://HOST:PORT")  # fmt: skip
    fetch.set_defaults(run=_fetch, command=fetch)

    cache = commands.add_parser("cache", help="keep what was fetched on this node for the next one that needs it")
    cache.add_argument("--dir", type=Path, required=True, help="folder that belongs to the cache alone")
    cache.add_argument("--max-bytes", type=_positive, required=True, metavar="BYTES",
                       help="all there may be; what was used longest ago goes first")  # fmt: skip
    cache.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    cache.add_argument("--port", type=_port, default=contract.CACHE_PORT, metavar="PORT",
                       help="port to listen on (default: %(default)s)")  # fmt: skip
    cache.set_defaults(run=_cache, command=cache)

    build = commands.add_parser("build", help="make, measure and judge the variants of a model")
    build.add_argument("--spec", required=True, metavar="JSON|FILE",
                       help="what to build, or the file that says it; - for standard input")  # fmt: skip
    build.add_argument("--store", type=Path, required=True, metavar="DIR", help="folder that keeps what was made")
    build.add_argument("--memory", type=_size, default="8Gi", metavar="BYTES",
                       help="what one step may take (default: %(default)s)")  # fmt: skip
    build.add_argument("--step-s", type=_seconds, default=1800.0, metavar="SECONDS",
                       help="how long one step may take (default: %(default)g)")  # fmt: skip
    build.add_argument("--publish", metavar="URI",
                       help="artifact store that gets the models that may serve, and the report")  # fmt: skip
    build.add_argument("--claims", type=Path, metavar="DIR", help="folder with the volumes that pvc://CLAIM/PATH names")
    build.add_argument("--progress-port", type=_port, metavar="PORT",
                       help="port of every address that tells how far it is")  # fmt: skip
    build.set_defaults(run=_build, command=build)

    engine = commands.add_parser("engine", description="Hold one engine for the server that started this process.")
    for descriptor in ("--parent", "--calls", "--control"):
        engine.add_argument(descriptor, type=int, required=True)
    engine.add_argument("--regions", type=lambda text: tuple(map(int, text.split(","))))
    engine.set_defaults(run=_engine, command=engine)
    return parser


def _listening(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> argparse._ArgumentGroup:
    """What every server takes: how it listens, and its limits."""
    listening, limits = parser.add_argument_group("listening"), parser.add_argument_group("limits")
    listening.add_argument("--host", default=env.get(Env.HOST, "127.0.0.1"),
                           help="address to listen on (default: %(default)s)")  # fmt: skip
    listening.add_argument("--http-port", type=_port, default=env.get(Env.HTTP_PORT, str(contract.HTTP_PORT)),
                           metavar="PORT", help="port for REST; 0 takes a free one (default: %(default)s)")  # fmt: skip
    listening.add_argument("--settle-s", type=_seconds, default=0.0, metavar="SECONDS",
                           help="how long to go on accepting after SIGTERM (default: %(default)g)")  # fmt: skip
    limits.add_argument("--max-request-bytes", type=_positive, default=64 * 2**20, metavar="BYTES",
                        help="largest request, packed or unpacked (default: %(default)s)")  # fmt: skip
    limits.add_argument("--max-requests", type=_positive, default=1024, metavar="N",
                        help="requests of all models that may wait or be computed (default: %(default)s)")  # fmt: skip
    return listening


def _given(parser: argparse.ArgumentParser, env: Mapping[str, str], *protocols: str) -> None:
    """What a server of others takes."""
    folder = env.get(Env.MODEL_DIR, contract.MODEL_DIR)
    parser.add_argument("path", nargs="?", type=_path, metavar="PATH", default=Path(folder),
                        help=f"model file, or its folder (default: {folder.replace('%', '%%')})")  # fmt: skip
    parser.add_argument("--name", default=env.get(Env.MODEL), help="name of the model")
    parser.add_argument("--settings", metavar="JSON", default=env.get(Env.SETTINGS, "{}"),
                        help="said of the model, above what penstock.json in its folder says")  # fmt: skip
    parser.add_argument("--host", default=env.get(Env.HOST, "127.0.0.1"),
                        help="address to listen on (default: %(default)s)")  # fmt: skip
    ports = {"http": env.get(Env.HTTP_PORT, contract.HTTP_PORT), "grpc": env.get(Env.GRPC_PORT, contract.GRPC_PORT)}
    for protocol in protocols:
        parser.add_argument(f"--{protocol}-port", type=_port, metavar="PORT", default=str(ports.get(protocol, 0)),
                            help="0 takes a free one (default: %(default)s)")  # fmt: skip


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port; expected a number from 0 to 65535")
    return int(text)


def _workers(text: str) -> int:
    if text == "auto":
        from serving.engines import cpu

        return cpu.limit()
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 up, and not 'auto' (one process a CPU)")
    return int(text)


def _path(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no path on this machine; run 'penstock fetch --uri {text} --to DIR' first, then serve DIR"
        )
    return Path(text)


def _otherwise(text: str) -> tuple[str, str, str]:
    """Variant, URI and digest."""
    variant, _, rest = text.partition("=")
    uri, _, digest = rest.rpartition("@")
    if not (variant and uri and digest):
        raise argparse.ArgumentTypeError(f"'{text}' is not VARIANT=URI@sha256:HEX")
    return variant, uri, digest


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 up")
    return int(text)


def _size(text: str) -> int:
    from serving import settings

    try:
        return settings.size_bytes(text)
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size_or_none(text: str) -> int:
    return 0 if text == "0" else _size(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from 0 up")
    return value


def _some_seconds(text: str) -> float:
    if (value := _seconds(text)) == 0:
        raise argparse.ArgumentTypeError("0 seconds are too few for an answer; give some more")
    return value


def _log(text: str) -> tuple[float, Path | None]:
    rate, _, file = text.partition(":")
    try:
        value = float(rate)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{rate}' is no share of requests from 0 to 1")
    return value, Path(file) if file else None


def _listen(options: argparse.Namespace, env: Mapping[str, str], grpc_port: int | None) -> Listen:
    from serving.http.plane import Limits
    from serving.server import Listen

    headers = {contract.REVISION_HEADER: env.get(Env.REVISION), contract.VARIANT_HEADER: _variant(env)}
    return Listen(
        host=options.host,
        http_port=options.http_port,
        grpc_port=grpc_port,
        limits=Limits(
            max_request_bytes=options.max_request_bytes,
            max_held_bytes=4 * options.max_request_bytes,
            max_requests=options.max_requests,
        ),
        settle_s=options.settle_s,
        identity={name: value for name, value in headers.items() if value},
    )


def _variant(env: Mapping[str, str]) -> str | None:
    """Which one this process serves: what was asked for, or what its fetch took in its place."""
    try:
        return Path(env.get(Env.MODEL_DIR, contract.MODEL_DIR), contract.VARIANT_FILE).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return env.get(Env.VARIANT)


def _serve(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    with _kept():
        from serving import allocator, server, settings
        from serving.telemetry import otlp, telemetry

    allocator.keep_freed()
    if options.paths is options.command.get_default("paths") and not options.paths[0].exists():
        raise ArtifactRefused(
            f"no path was given, and {options.paths[0]}, where a model is looked for then, does not exist; "
            "give a model file or a folder with models: penstock serve PATH"
        )
    said = settings.parse(options.settings, f"--settings (or {Env.SETTINGS})")
    serving = server.Serving(
        tuple(options.paths),
        options.name,
        said,
        options.workers,
        options.pin,
        options.memory_budget,
        options.response_cache_bytes,
    )
    rate, file = options.log_requests or (None, None)
    asked = telemetry.Asked(otlp.signals(env), rate, file)
    listen = dataclasses.replace(
        _listen(options, env, options.grpc_port), telemetry=asked, mirrors=env.get(Env.ROUTED) == "1"
    )
    return server.serve(listen, serving)


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """For imports: what they make stays, so looking for garbage in it, again and again as it grows, finds none."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _triton(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving import settings

    said = settings.parse(options.settings, f"--settings (or {Env.SETTINGS})")
    try:
        from serving.triton import server
    except ModuleNotFoundError as error:
        raise ArtifactRefused(
            f"Triton needs the package {error.name}, which is not installed here; install penstock[local,triton]"
        ) from error
    listen = server.Listen(options.host, options.http_port, options.grpc_port, options.metrics_port)
    return server.serve(listen, options.path, options.name, said, options.memory_budget)


def _conformance(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    try:
        from serving.conformance import command, target
    except ModuleNotFoundError as error:
        raise ServingError(
            f"the package {error.name} is needed, which is not installed here; install penstock[local]"
        ) from error
    place = target.Place(options.url, options.grpc, options.metrics, options.timeout, options.input)
    return command.run(place, as_json=options.output == "json")


def _rayserve(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving import settings
    from serving.rayserve import server

    said = settings.parse(options.settings, f"--settings (or {Env.SETTINGS})")
    if importlib.util.find_spec("ray") is None:
        raise ArtifactRefused(
            "Ray Serve needs the package ray, which is not installed here; install penstock[local,ray]"
        )
    listen = server.Listen(options.host, options.http_port, options.grpc_port)
    revision, variant = env.get(Env.REVISION, ""), env.get(Env.VARIANT, "")
    return server.serve(listen, server.Served(options.path, options.name, said, revision, variant))


def _catalog(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving import server

    return server.serve_catalog(_listen(options, env, None), options.index)


def _fetch(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving.artifacts import storage
    from serving.artifacts.cached import Cache
    from serving.engines import cpu

    access = storage.Access(
        docker_config=_docker_config(env),
        plain_http=_hosts(options.plain_http),
        cache=Cache(options.cache) if options.cache else None,
    )
    variant, uri, digest = "", options.uri, options.digest
    if options.otherwise and not options.for_cpu & cpu.features():
        variant, uri, digest = options.otherwise
    if options.to:
        (options.to / contract.VARIANT_FILE).unlink(missing_ok=True)
    fetched = storage.fetch(uri, digest, to=options.to, store=options.store, access=access)
    if options.to and variant:
        (options.to / contract.VARIANT_FILE).write_text(variant)
    told = {"digest": fetched.digest, "path": str(fetched.path), "bytes": fetched.bytes, "files": fetched.files}
    text = json.dumps(told | ({"variant": variant} if variant else {}))
    sys.stdout.write(text + "\n")
    _last_words(env, text)
    return Exit.OK


def _docker_config(env: Mapping[str, str]) -> Path:
    return Path(env.get(Env.DOCKER_CONFIG) or Path(env.get("HOME", "/"), ".docker"))


def _hosts(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) - {""}


def _engine(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving.engines import child

    return child.main(options.parent, options.calls, options.control, options.regions)


def _cache(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving.artifacts import cache

    return cache.serve(options.dir, options.max_bytes, options.host, options.port)


def _build(options: argparse.Namespace, env: Mapping[str, str]) -> Exit:
    from serving.artifacts import storage
    from serving.parent import die_with, hide_from_children
    from serving.variants import building, progress, publishing, recipe, stages, workshop

    if not die_with(os.getppid()):
        return Exit.FAILED
    # Stages run strangers' models, and the keys of buckets are in the environment.
    hide_from_children()
    # The first process of a container ends at no signal that it does not listen to.
    signal.signal(signal.SIGTERM, _ended)
    answering = None if options.progress_port is None else progress.Told(options.progress_port)

    def tell(what: str, value: Any) -> None:
        sys.stdout.write(json.dumps({what: value}) + "\n")
        sys.stdout.flush()
        if answering is not None and what == "progress":
            answering.tell(value)

    limits = stages.Limits(options.memory, options.step_s)
    access = storage.Access(_docker_config(env), _hosts(env.get(Env.PLAIN_HTTP, "")), claims=options.claims)
    asked = recipe.parse(_document(options.spec))
    build = building.Build(asked, options.store, limits, lambda one: tell("progress", dataclasses.asdict(one)), access)
    report = build.run()
    if options.publish:

        def sending(variant: str) -> None:
            tell("progress", dataclasses.asdict(workshop.Progress(variant, "uploading", 1.0, None)))

        report = publishing.publish(report, options.publish, sending)
        _last_words(env, publishing.summary(report))
    tell("report", report)
    return Exit.OK


def _document(said: str) -> str:
    """What ``--spec`` says, or names."""
    if said.lstrip().startswith("{"):
        return said
    try:
        return sys.stdin.read() if said == "-" else Path(said).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--spec {said} cannot be read: {error}") from error


def _ended(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _last_words(env: Mapping[str, str], text: str) -> None:
    log = env.get(Env.TERMINATION_LOG)
    if log:
        try:
            Path(log).write_bytes(text.encode()[:_LAST_WORDS_BYTES])
        except OSError as error:
            sys.stderr.write(f"{log} could not be written ({error.strerror}); its content would have been: {text}\n")
