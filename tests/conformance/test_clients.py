"""Unmodified clients against the server: each in a process of its own, since two of them register the same messages.

A ``client_*.py`` takes the authorities for REST and for gRPC, asserts by itself what it sees (``expected``), and
prints ``conforms``; so the same scripts can run against whatever stands in front of a server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conformance import expected
from tests.rig.model_server import DEADLINE_S, ROOT, ModelServer, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """``echo`` has an input of every datatype by its name; ``digits`` is the example model."""
    folder = tmp_path_factory.mktemp("models")
    echo = folder / "echo.identity.json"
    inputs = [{"name": name, "datatype": name, "shape": [-1]} for name in expected.EVERYTHING]
    echo.write_text(json.dumps({"inputs": inputs}))
    (folder / "digits").mkdir()
    (folder / "digits" / "model.onnx").write_bytes(expected.DIGITS.read_bytes())
    with running("serve", str(echo), str(folder / "digits")) as server:
        yield server


def run(script: str, server: ModelServer) -> None:
    """Runs a script of this folder."""
    module = f"tests.conformance.{script.removesuffix('.py')}"
    ended = subprocess.run(
        [sys.executable, "-m", module, server.authority, f"127.0.0.1:{server.grpc_port}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
    )
    assert (ended.returncode, ended.stdout) == (0, "conforms\n"), ended.stderr


def test_tritonclient_over_http(server: ModelServer) -> None:
    run("client_tritonclient_http.py", server)


def test_tritonclient_over_http_with_asyncio(server: ModelServer) -> None:
    run("client_tritonclient_http_aio.py", server)


def test_tritonclient_over_grpc(server: ModelServer) -> None:
    run("client_tritonclient_grpc.py", server)


def test_tritonclient_over_grpc_with_asyncio(server: ModelServer) -> None:
    run("client_tritonclient_grpc_aio.py", server)


def test_kserve_over_rest(server: ModelServer) -> None:
    run("client_kserve_rest.py", server)


def test_kserve_over_grpc(server: ModelServer) -> None:
    run("client_kserve_grpc.py", server)
