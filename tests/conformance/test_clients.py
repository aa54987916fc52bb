"""Unmodified clients: against the model server itself, and against ``penstock up`` with its router in between.

Each client runs in a process of its own, since two of them register the same messages. A ``client_*.py`` takes the
authorities for REST and for gRPC and which way it goes, asserts by itself what it sees (``expected``), and prints
``conforms``.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conformance import expected
from tests.rig import local_mode, model_server
from tests.rig.model_server import DEADLINE_S, ROOT


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a client asks, by which way: ``direct`` or ``routed``."""

    rest: str
    grpc: str
    way: str


@pytest.fixture(scope="module", params=["direct", "routed"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """``echo`` has an input of every datatype by its name; ``rows`` answers row by row; ``digits`` is the example model
    (with labels where it has a folder of its own).
    """
    folder = tmp_path_factory.mktemp(request.param)
    echo = folder / "echo.identity.json"
    inputs = [{"name": name, "datatype": name, "shape": [-1]} for name in expected.EVERYTHING]
    echo.write_text(json.dumps({"inputs": inputs}))
    rows = folder / "rows.identity.json"
    rows.write_text(json.dumps({"stream": True, "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]}))
    yield from direct(folder, [echo, rows]) if request.param == "direct" else routed(folder, [echo, rows])


def direct(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[Target]:
    (folder / "digits").mkdir()
    (folder / "digits" / "model.onnx").write_bytes(expected.DIGITS.read_bytes())
    (folder / "digits" / "penstock.json").write_text(json.dumps({"labels": expected.LABELS}))
    with model_server.running("serve", *map(str, files), str(folder / "digits")) as server:
        yield Target(server.authority, f"127.0.0.1:{server.grpc_port}", "direct")


def routed(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[Target]:
    for file in files:
        name = file.name.removesuffix(".identity.json")
        model = {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": name},
            "spec": {"source": {"uri": str(file)}},
        }
        (folder / f"{name}.yaml").write_text(json.dumps(model))
    with local_mode.running(folder) as local:
        local.up(str(folder / "echo.yaml"), str(folder / "rows.yaml"), str(expected.EXAMPLE / "plain.yaml"))
        for name in ("echo", "rows", "digits"):
            local.serving(name)
        yield Target(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", "routed")


def run(script: str, server: Target) -> None:
    """Runs a script of this folder."""
    module = f"tests.conformance.{script.removesuffix('.py')}"
    ended = subprocess.run(
        [sys.executable, "-m", module, server.rest, server.grpc, server.way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
    )
    assert (ended.returncode, ended.stdout) == (0, "conforms\n"), ended.stderr


def test_tritonclient_over_http(server: Target) -> None:
    run("client_tritonclient_http.py", server)


def test_tritonclient_over_http_with_asyncio(server: Target) -> None:
    run("client_tritonclient_http_aio.py", server)


def test_tritonclient_over_grpc(server: Target) -> None:
    run("client_tritonclient_grpc.py", server)


def test_tritonclient_over_grpc_with_asyncio(server: Target) -> None:
    run("client_tritonclient_grpc_aio.py", server)


def test_a_plain_client_that_generates(server: Target) -> None:
    run("client_generate.py", server)


def test_kserve_over_rest(server: Target) -> None:
    run("client_kserve_rest.py", server)


def test_kserve_over_grpc(server: Target) -> None:
    run("client_kserve_grpc.py", server)
