"""Proxies that others use, before one server. They route by the path's beginning and look at nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks import processes
from benchmarks.contestants import Server

_EXTENSIONS = "envoy.extensions"
_TYPES = f"type.googleapis.com/{_EXTENSIONS}"


@contextlib.contextmanager
def traefik(server: Server) -> Iterator[Server]:
    """``server`` behind Traefik."""
    http_port, grpc_port = processes.free_ports(2)
    ways = {"http": f"http://127.0.0.1:{server.http_port}", "grpc": f"h2c://127.0.0.1:{server.grpc_port}"}
    routers = {way: {"rule": "PathPrefix(`/`)", "service": way, "entryPoints": [way]} for way in ways}
    services = {way: {"loadBalancer": {"servers": [{"url": url}]}} for way, url in ways.items()}
    options = [
        f"--entrypoints.http.address=127.0.0.1:{http_port}",
        f"--entrypoints.grpc.address=127.0.0.1:{grpc_port}",
        "--providers.file.filename=routes.yaml",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    with _started(server, "traefik", {"http": {"routers": routers, "services": services}}, options) as tree:
        yield dataclasses.replace(server, http_port=http_port, grpc_port=grpc_port, trees=(*server.trees, tree))


@contextlib.contextmanager
def envoy(server: Server) -> Iterator[Server]:
    """``server`` behind Envoy, with one worker."""
    http_port, grpc_port = processes.free_ports(2)
    resources = {
        "listeners": [_listener("http", http_port), _listener("grpc", grpc_port)],
        "clusters": [_cluster("http", server.http_port, 1), _cluster("grpc", server.grpc_port, 2)],
    }
    options = ["--config-path", "routes.yaml", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with _started(server, "envoy", {"static_resources": resources}, options) as tree:
        yield dataclasses.replace(server, http_port=http_port, grpc_port=grpc_port, trees=(*server.trees, tree))


@contextlib.contextmanager
def _started(server: Server, name: str, configuration: dict[str, Any], options: list[str]) -> Iterator[processes.Tree]:
    folder = server.folder / name
    folder.mkdir()
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    assert program, f"no {name} beside Python; run `make setup`"
    folder.joinpath("routes.yaml").write_text(yaml.safe_dump(configuration))
    tree = processes.start([program, *options], folder, {}, processes.SERVER_CPU)
    try:
        yield tree
    finally:
        tree.end()


def _listener(way: str, port: int) -> dict[str, Any]:
    """All that comes to ``port`` goes to the cluster of that name."""
    router = {"@type": f"{_TYPES}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": way,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {"name": way, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": way}}]}
            ]
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": way, "address": _address(port), "filter_chains": [{"filters": filters}]}


def _cluster(way: str, port: int, version: int) -> dict[str, Any]:
    """One server on this machine, spoken to in that version of HTTP."""
    options = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {f"http{version if version > 1 else ''}_protocol_options": {}},
    }
    return {
        "name": way,
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": way,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
