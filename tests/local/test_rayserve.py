"""Ray Serve as an engine: a real Ray behind the commands and the router that people use."""

from __future__ import annotations

import asyncio
import http.client
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml
from tritonclient.utils import InferenceServerException

from tests.rig import local_mode, model_server
from tests.rig.load import DIGITS, FIRST, Load, answer_of
from tests.rig.local_mode import Local
from tests.rig.model_server import ModelServer
from tests.rig.waiting import until

DEADLINE_S = 120.0
"""A Ray starts nine processes of Python, which takes 20 s of a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("rayserve") / "digits"
    folder.mkdir()
    shutil.copy(DIGITS / "model.onnx", folder)
    (folder / "penstock.json").write_text(json.dumps({"batching": {"maxSize": 8}}))
    with model_server.running("rayserve", str(folder)) as started:
        yield started


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def part(server: psutil.Process, name: str) -> psutil.Process:
    """The process of a Ray whose title begins so."""
    (found,) = (one for one in server.children(recursive=True) if any(name in word for word in one.cmdline()[:1]))
    return found


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def folder_of(launcher: psutil.Process) -> list[pathlib.Path]:
    return list(pathlib.Path("/tmp").glob(f"penstock-ray-{launcher.pid}-*"))


def test_answers_are_those_of_onnxruntime_over_rest_and_grpc(server: ModelServer) -> None:
    with np.load(DIGITS / "eval.npz", allow_pickle=False) as held_out:
        pictures = np.asarray(held_out["x"][:5], dtype=np.float32)
    expected = answer_of(FIRST, pictures)
    assert server.get("/v2/health/ready") == (200, '{"ready":true,"live":true}')

    with triton_http.InferenceServerClient(server.authority) as client:
        for is_binary in (True, False):
            given = triton_http.InferInput("image", list(pictures.shape), "FP32")
            given.set_data_from_numpy(pictures, binary_data=is_binary)
            wanted = triton_http.InferRequestedOutput("scores", binary_data=is_binary)
            for coding in (None, "gzip"):
                answer = client.infer(
                    "digits",
                    [given],
                    outputs=[wanted],
                    request_id="7",
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                assert answer.get_response()["id"] == "7"
                np.testing.assert_allclose(answer.as_numpy("scores"), expected, atol=1e-5)
        best = triton_http.InferRequestedOutput("scores", class_count=1)
        named = client.infer("digits", [given], outputs=[best]).as_numpy("scores").ravel()
        assert [int(text.decode().split(":")[1]) for text in named] == expected.argmax(axis=1).tolist()
        assert client.get_model_metadata("digits")["platform"] == "onnxruntime_onnx"
        assert client.get_inference_statistics("digits")["model_stats"][0]["inference_stats"]["success"]["count"] >= 5

    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        asked = triton_grpc.InferInput("image", list(pictures.shape), "FP32").set_data_from_numpy(pictures)
        answer = client.infer("digits", [asked], request_id="8")
        assert answer.get_response().id == "8"
        np.testing.assert_allclose(answer.as_numpy("scores"), expected, atol=1e-5)
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.get_model_config("digits").config.name == "digits"

        streamed: asyncio.Queue[Any] = asyncio.Queue()
        stream: Any = client
        stream.start_stream(lambda result, error: streamed.put_nowait((result, error)))
        stream.async_stream_infer("digits", [asked], request_id="9")
        stream.async_stream_infer("nobody", [asked], request_id="10")
        stream.stop_stream()
        (first, none), (nothing, error) = streamed.get_nowait(), streamed.get_nowait()
        assert (first.get_response().id, none, nothing) == ("9", None, None)
        assert "Request for unknown model: 'nobody'" in str(error)


def test_what_is_wrong_is_told_as_our_own_server_tells_it(server: ModelServer) -> None:
    def told(path: str, document: object) -> tuple[int, str]:
        status, body = server.request("POST", path, json.dumps(document).encode())
        return status, json.loads(body)["error"]

    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [0, 0, 0, 0]}
    status, error = told("/v2/models/digits/infer", {"inputs": [image]})
    assert (status, "image" in error, "32" in error) == (400, True, True)
    assert told("/v2/models/nobody/infer", {"inputs": [image]})[0] == 404
    assert told("/v2/models/digits/infer", {})[0] == 400
    assert told("/v2/repository/models/digits/unload", {})[0] == 404
    status, error = server.request("POST", "/v2/models/digits/infer", bytes(65 * 2**20))
    assert (status, "limit of this server" in error) == (413, True)

    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        wrong = triton_grpc.InferInput("image", [1, 1, 2, 2], "FP32")
        wrong.set_data_from_numpy(np.zeros((1, 1, 2, 2), np.float32))
        cases: tuple[tuple[Callable[[], object], str], ...] = (
            (lambda: client.infer("digits", [wrong]), "INVALID_ARGUMENT"),
            (lambda: client.infer("nobody", [wrong]), "NOT_FOUND"),
            (lambda: client.unload_model("digits"), "UNIMPLEMENTED"),
        )
        for call, code in cases:
            with pytest.raises(InferenceServerException) as refused:
                call()
            assert refused.value.status() == f"StatusCode.{code}"
        assert client.is_model_ready("digits")


CALLS = {
    "gcs_server": "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "raylet": "/ray.rpc.NodeManagerService/GetNodeStats",
    "ray::DashboardAgent": "/ray.rpc.ReporterService/GetTraceback",
    "ray::ProxyActor": "/ray.rpc.CoreWorkerService/PushTask",
    "ray::ServeReplica": "/ray.serve.ASGIService/HandleRequest",
}
"""A call that each part of a Ray takes on one of its ports."""


def asked(port: int, call: str, token: str | None) -> str:
    """How an empty call ends, with the token or without one."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.unary_unary(call)
        error = method.future(b"", timeout=DEADLINE_S, metadata=metadata).exception()
        return "OK" if error is None else str(error.code().name)


def got(port: int, method: str, path: str, token: str | None = None) -> int | None:
    """The status of an HTTP request; None where that is not spoken."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    client.request(method, path, b"{}", {} if token is None else {"authorization": f"Bearer {token}"})
    try:
        return client.getresponse().status
    except http.client.BadStatusLine:
        return None


def heard(agent: psutil.Process, path: str) -> list[int]:
    """Ports on which an agent speaks HTTP, once there is one: it may begin after its Ray serves."""
    found: list[int] = []

    def speaks() -> bool:
        listening = (one.laddr.port for one in agent.connections("tcp") if one.status == psutil.CONN_LISTEN)
        found[:] = [port for port in listening if got(port, "POST", path) is not None]
        return bool(found)

    model_server.until(speaks, f"{agent.name()} speaks HTTP")
    return found


def test_ray_runs_nothing_for_whoever_has_not_its_token_and_only_replicas_listen_beyond_this_machine(
    server: ModelServer,
) -> None:
    launcher = psutil.Process(server.process.pid)
    token = part(launcher, "gcs_server").environ()["RAY_AUTH_TOKEN"]
    beyond = []
    for name, call in CALLS.items():
        process = part(launcher, name)
        takes_it = []
        for one in process.connections("tcp"):
            if one.status != psutil.CONN_LISTEN or one.laddr.port in (server.http_port, server.grpc_port):
                continue
            if "127.0.0.1" not in one.laddr.ip:
                beyond.append(name)
            refused = asked(one.laddr.port, call, None)
            assert refused != "OK"
            if refused == "UNAUTHENTICATED":
                takes_it.append(one.laddr.port)
                assert asked(one.laddr.port, call, "0" * 64) == "UNAUTHENTICATED"
                assert asked(one.laddr.port, call, token) != "UNAUTHENTICATED"
        assert len(takes_it) == 1, name
    assert beyond == ["ray::ServeReplica"]

    # Jobs, which is to say programs, are taken by the agent; environments are made by another one.
    for name, path in (
        ("ray::DashboardAgent", "/api/job_agent/jobs/"),
        ("ray::RuntimeEnvAgent", "/get_or_create_runtime_env"),
    ):
        (port,) = heard(part(launcher, name), path)
        assert got(port, "POST", path) == 401, name
        assert got(port, "POST", path, "0" * 64) == 403, name
        assert got(port, "GET", "/nothing", token) == 404, name


def test_a_killed_replica_or_proxy_comes_back_and_without_its_ray_the_server_ends(server: ModelServer) -> None:
    launcher = psutil.Process(server.process.pid)
    seven = (DIGITS / "seven.json").read_bytes()

    def answers() -> bool:
        try:
            return server.request("POST", "/v2/models/digits/infer", seven)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    for name in ("ray::ServeReplica", "ray::ProxyActor"):
        assert answers()
        killed = part(launcher, name)
        killed.kill()
        model_server.until(lambda killed=killed: is_over(killed), f"{name} is killed")  # type: ignore[misc]
        model_server.until(answers, f"it answers without the first {name}", DEADLINE_S)

    everything = family(launcher)
    part(launcher, "raylet").kill()
    assert server.process.wait(DEADLINE_S) == 1
    model_server.until(lambda: all(map(is_over, everything)), "nothing of it is left", DEADLINE_S)
    assert folder_of(launcher) == []


def write(folder: pathlib.Path, runtime: str) -> str:
    """The file of the digits, run by ``runtime``."""
    model = yaml.safe_load(FIRST.read_text())
    model["spec"]["source"]["uri"] = str(FIRST.parent / "model.onnx")
    model["spec"]["rollout"] = {"steps": [{"weight": 20, "for": "1s"}]}
    model["spec"] |= {"runtime": runtime, "batching": {"maxSize": 8}}
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    return str(file)


async def test_a_rollout_from_onnxruntime_to_ray_serve_fails_no_request_and_nothing_stays_when_it_is_deleted(
    local: Local, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_mode, "DEADLINE_S", DEADLINE_S)
    await asyncio.to_thread(local.up, write(tmp_path, "onnxruntime"))
    first = await asyncio.to_thread(local.serving, "digits")
    ended = asyncio.Event()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", rate=10)
    running = asyncio.create_task(load.run(ended.is_set))
    await asyncio.to_thread(local, "apply", "-f", write(tmp_path, "rayserve"))
    assert await asyncio.to_thread(local.serving, "digits") != first

    async def is_left() -> bool:
        return await asyncio.to_thread(local.servers, "digits") == []

    await until("the server of the first revision has ended", is_left)
    sent = load.sent

    async def more() -> bool:
        return load.sent > sent + 30

    await until("Ray Serve alone answers", more)
    ended.set()
    await running
    assert load.failures == []

    (launcher,) = [one for one in map(psutil.Process, local.children()) if "rayserve" in one.cmdline()]
    everything = family(launcher)
    assert len(everything) > 8
    assert len(folder_of(launcher)) == 1
    await asyncio.to_thread(local, "delete", "model", "digits")

    async def all_ended() -> bool:
        return all(map(is_over, everything))

    await until("Ray has ended", all_ended)
    assert folder_of(launcher) == []
    assert list(pathlib.Path("/dev/shm").glob("*plasma*")) == []
