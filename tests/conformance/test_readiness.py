"""Nothing is said to be ready that does not answer, over every protocol: what other servers were found to get wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc as grpcio
import pytest

from serving.contract import GRPC_SERVICE, Exit
from serving.protocols import grpc
from tests.rig import model_server
from tests.rig.model_server import DEADLINE_S, ModelServer

X = {"name": "x", "datatype": "FP32", "shape": [1]}
ASKED = {
    "/v2/models/{}/infer": {"inputs": [{**X, "data": [1]}]},
    "/v2/models/{}/generate": {"x": 1},
    "/v2/models/{}/generate_stream": {"x": 1},
    "/v1/models/{}:predict": {"instances": [1]},
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModelServer]:
    """``good`` answers; ``bad`` cannot be loaded."""
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "m.identity.json").write_text(json.dumps({"inputs": [{**X, "shape": [-1]}]}))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no model")
    with model_server.running("serve", str(tmp_path)) as server:
        yield server


def called(server: ModelServer, method: str, **fields: Any) -> Any:
    request, answer = grpc.METHODS[method]
    with grpcio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call: Any = channel.unary_unary(
            f"/{GRPC_SERVICE}/{method}", lambda message: message.SerializeToString(), answer.FromString
        )
        return call(request(**fields), timeout=DEADLINE_S)


def ready(server: ModelServer) -> tuple[bool, bool]:
    """Whether the server is said to be ready over REST and gRPC; it lives all the time."""
    assert server.get("/v2/health/live")[0] == 200
    assert called(server, "ServerLive").live
    return server.get("/v2/health/ready")[0] == 200, called(server, "ServerReady").ready


def model_ready(server: ModelServer, model: str) -> list[bool]:
    """Whether a model is said to be ready: V2, with its version, V1, gRPC, the index."""
    paths = (f"/v2/models/{model}/ready", f"/v2/models/{model}/versions/1/ready", f"/v1/models/{model}")
    index = json.loads(server.request("POST", "/v2/repository/index", b'{"ready": true}')[1])
    return [
        *(server.get(path)[0] == 200 for path in paths),
        called(server, "ModelReady", name=model).ready,
        model in [entry["name"] for entry in index],
    ]


def answers(server: ModelServer, model: str) -> list[int | str]:
    """What comes of asking a model for an inference: the statuses of REST, and gRPC's."""
    found: list[int | str] = [
        server.request("POST", path.format(model), json.dumps(body).encode())[0] for path, body in ASKED.items()
    ]
    try:
        called(server, "ModelInfer", model_name=model, inputs=[{**X, "contents": {"fp32_contents": [1]}}])
        found.append("OK")
    except grpcio.RpcError as error:
        found.append(error.code().name)
    return found


def test_a_server_whose_only_model_cannot_be_loaded_ends_and_never_was_ready(tmp_path: Path) -> None:
    """A broken revision was promoted because "all of no models" are ready (MLServer#2056, kserve#3262)."""
    (tmp_path / "model.onnx").write_bytes(b"no model")

    process = model_server.start("serve", str(tmp_path))
    said, _ = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, said) == (Exit.REFUSED, "")


def test_a_server_with_an_unloaded_model_and_no_other_is_not_ready(server: ModelServer) -> None:
    """Ready stayed 200 when everything had been unloaded (Triton#7588)."""
    assert ready(server) == (True, True)
    server.request("POST", "/v2/repository/models/good/unload")

    assert ready(server) == (False, False)
    assert model_ready(server, "good") == [False] * 5

    server.request("POST", "/v2/repository/models/good/load")
    assert ready(server) == (True, True)
    assert model_ready(server, "good") == [True] * 5


def test_a_model_whose_only_version_failed_is_not_ready_while_another_is(server: ModelServer) -> None:
    assert model_ready(server, "bad") == [False] * 5
    assert model_ready(server, "good") == [True] * 5
    assert ready(server) == (True, True)


def test_what_is_not_ready_gives_no_answers_and_what_is_ready_does(server: ModelServer) -> None:
    """Inference went on while the server said that it was not ready (Triton#5438)."""
    assert answers(server, "good") == [200, 200, 200, 200, "OK"]
    assert answers(server, "bad") == [503, 503, 503, 503, "UNAVAILABLE"]

    server.request("POST", "/v2/repository/models/good/unload")

    assert answers(server, "good") == [503, 503, 503, 503, "UNAVAILABLE"]
