"""The document against a server: the routes of both its parts, and what it says to each path of the document."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from serving.http import management, openapi
from serving.http.routes import Kind, Routes
from serving.models.repository import Repository
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics
from tests.rig import model_server
from tests.rig.model_server import ModelServer

DOCUMENT = openapi.document("1.2.3")
OPERATIONS = [
    (method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("openapi")
    (folder / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    with model_server.running("serve", str(folder / "m.identity.json")) as server:
        yield server


def target(path: str) -> str:
    return path.replace("{model}", "m").replace("{version}", "1")


def in_management(tmp_path: Path) -> set[tuple[str, str]]:
    service = Service(Repository([tmp_path], None, Metrics(), {}, Admission(1, 1)))
    routes = management.build(service).routes
    return {(method, route.path) for route in routes if isinstance(route, APIRoute) for method in route.methods or ()}


def in_data_plane() -> dict[tuple[str, str], Kind]:
    found = {(method, path): Routes().find(method.encode(), target(path).encode()) for method, path in OPERATIONS}
    return {operation: route.kind for operation, route in found.items() if route is not None}


def test_every_route_is_described_and_nothing_else_is(tmp_path: Path) -> None:
    assert in_management(tmp_path) | set(in_data_plane()) == set(OPERATIONS)
    assert not in_management(tmp_path) & set(in_data_plane())
    assert set(in_data_plane().values()) == set(Kind) - {Kind.GRPC, Kind.GRPC_HEAD, Kind.UNREADABLE}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_path_is_served_with_a_status_that_is_described(server: ModelServer, method: str, path: str) -> None:
    status, _ = server.request(method, target(path), b"{}" if method == "POST" else b"")

    if path.endswith("/unload"):
        assert server.request("POST", "/v2/repository/models/m/load")[0] == 200
    assert str(status) in DOCUMENT["paths"][path][method.lower()]["responses"]
    assert status != 404


@pytest.mark.parametrize(("path", "expected"), [(path, set(found)) for path, found in DOCUMENT["paths"].items()])
def test_another_method_is_told_which_ones_there_are(server: ModelServer, path: str, expected: set[str]) -> None:
    status, body = server.request("DELETE", target(path))

    methods = " or ".join(sorted(method.upper() for method in expected))
    assert (status, body) == (
        405,
        f'{{"error":"DELETE {target(path)}: expected {methods}; /docs lists what there is"}}',
    )


def test_the_page_for_people_needs_no_other_host_and_names_every_path(server: ModelServer) -> None:
    status, page = server.get("/docs")

    assert status == 200
    assert "://" not in page
    assert "<script" not in page
    assert [path for path in DOCUMENT["paths"] if f"<code>{path}</code>" not in page] == []


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v2", ["GET"]),
        ("/v2/models/a:b", ["GET"]),
        ("/v1/models/m:predict", ["POST"]),
        ("/v2/models/stats", ["GET"]),
        ("/v2/nope", []),
        ("/v2/models/m/nope", []),
    ],
)
def test_the_methods_of_a_path_are_those_of_its_template(path: str, methods: list[str]) -> None:
    assert openapi.methods(DOCUMENT, path) == methods
