"""Triton as an engine: its real server behind the commands and the router that people use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
import yaml
from onnx import helper, numpy_helper
from tritonclient.utils import InferenceServerException

from serving.contract import Env, Exit
from serving.tensors import DTYPES
from tests.rig import closed_calls, model_server, onnx_models
from tests.rig.load import FIRST, Load
from tests.rig.local_mode import Local
from tests.rig.model_server import ModelServer
from tests.rig.waiting import until

TABLE = np.random.default_rng(5).normal(size=(8, 3)).astype(np.float32)
TYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")


@contextlib.contextmanager
def serving(folder: pathlib.Path, *options: str, **settings: Any) -> Iterator[ModelServer]:
    """Triton by itself with what is in ``folder``, ready."""
    (folder / "penstock.json").write_text(json.dumps(settings))
    with model_server.running("triton", str(folder), *options) as server:

        def is_ready() -> bool:
            assert server.process.poll() is None
            with contextlib.suppress(OSError):
                return server.get("/v2/health/ready")[0] == 200
            return False

        model_server.until(is_ready, "Triton is ready")
        yield server
        assert server.process.poll() is not None or server.stop() == 0


def lookup(path: pathlib.Path) -> pathlib.Path:
    """``y = TABLE[x]`` for x INT64 [-1, 1], which fails where x is beyond the table."""
    return onnx_models.save(
        path,
        helper.make_graph(
            [helper.make_node("Gather", ["table", "x"], ["y"])],
            "lookup",
            [onnx_models.value("x", onnx.TensorProto.INT64, ["n", 1])],
            [onnx_models.value("y", onnx.TensorProto.FLOAT, ["n", 1, 3])],
            [numpy_helper.from_array(TABLE, "table")],
        ),
    )


def echoes(path: pathlib.Path) -> pathlib.Path:
    """An input ``x-TYPE`` [-1, 2] for each of ``TYPES``, and an output ``y-TYPE`` that is the same."""
    elements = {name: helper.np_dtype_to_tensor_dtype(DTYPES[name]) for name in TYPES}
    return onnx_models.save(
        path,
        helper.make_graph(
            [helper.make_node("Identity", [f"x-{name}"], [f"y-{name}"]) for name in TYPES],
            "echoes",
            [onnx_models.value(f"x-{name}", element, ["n", 2]) for name, element in elements.items()],
            [onnx_models.value(f"y-{name}", element, ["n", 2]) for name, element in elements.items()],
        ),
    )


def asked(row: int, rows: int = 1) -> triton_http.InferInput:
    return triton_http.InferInput("x", [rows, 1], "INT64").set_data_from_numpy(np.full((rows, 1), row, np.int64))


def test_requests_that_share_calls_get_their_own_answers_and_one_that_fails_fails_alone(
    tmp_path: pathlib.Path,
) -> None:
    lookup(tmp_path / "lookup" / "model.onnx")
    said = {"batching": {"maxSize": 4, "maxDelay": "20ms"}, "labels": {"y": ["a", "b", "c"]}, "cache": True}
    with serving(tmp_path / "lookup", **said, warmUp=[{"batchSizes": [1, 4]}]) as server:
        numbers = [number % 9 for number in range(27)]  # the table has no 8

        async def all_at_once() -> list[Any]:
            async with triton_http_aio.InferenceServerClient(server.authority) as client:
                calls = (client.infer("lookup", [asked(number)], request_id=str(number)) for number in numbers)
                return await asyncio.gather(*calls, return_exceptions=True)

        for number, answer in zip(numbers, asyncio.run(all_at_once()), strict=True):
            if number == 8:
                assert isinstance(answer, InferenceServerException)
                assert "the model" in str(answer)
            else:
                assert (answer.as_numpy("y") == TABLE[number]).all()

        with triton_http.InferenceServerClient(server.authority) as client:
            for _ in range(2):
                assert (client.infer("lookup", [asked(2)]).as_numpy("y") == TABLE[2]).all()
            stats = client.get_inference_statistics("lookup")["model_stats"][0]
            assert any(int(batch["batch_size"]) > 1 for batch in stats["batch_stats"])
            assert int(stats["inference_stats"]["cache_hit"]["count"]) > 0
            best = client.infer("lookup", [asked(3)], outputs=[triton_http.InferRequestedOutput("y", class_count=1)])
            label = best.as_numpy("y").ravel()[0].decode().rpartition(":")[2]
            assert label == "abc"[TABLE[3].argmax()]
            with pytest.raises(InferenceServerException, match="batch-size must be <= 4"):
                client.infer("lookup", [asked(1, rows=5)])


def test_numbers_of_every_type_come_out_as_they_went_in_also_none_of_them(tmp_path: pathlib.Path) -> None:
    echoes(tmp_path / "echoes" / "model.onnx")
    with (
        serving(tmp_path / "echoes", batching={"maxSize": 1}) as server,
        triton_http.InferenceServerClient(server.authority) as client,
    ):
        for rows in (3, 0):
            given = {name: (np.arange(rows * 2).reshape(rows, 2) % 5).astype(DTYPES[name]) for name in TYPES}
            answer = client.infer(
                "echoes",
                [
                    triton_http.InferInput(f"x-{name}", list(array.shape), name).set_data_from_numpy(array)
                    for name, array in given.items()
                ],
            )
            for name, array in given.items():
                got = answer.as_numpy(f"y-{name}")
                assert (got.dtype, got.shape, got.tolist()) == (array.dtype, array.shape, array.tolist())


def test_several_models_of_a_folder_answer_side_by_side_within_a_budget_and_all_end_with_one(
    tmp_path: pathlib.Path,
) -> None:
    for number in (1, 2):
        onnx_models.table(tmp_path / f"m{number}" / "model.onnx", 1, scale=number)
    with serving(tmp_path, "--memory-budget=512Mi") as server:
        with triton_http.InferenceServerClient(server.authority) as client:
            for number in (1, 2):
                given = triton_http.InferInput("x", [1], "INT64").set_data_from_numpy(np.array([7]))
                assert client.infer(f"m{number}", [given]).as_numpy("y").tolist() == [[7.0 * number] * 256]
        (triton,) = psutil.Process(server.process.pid).children()
        first, second = triton.children()
        first.kill()
        _, alive = psutil.wait_procs([triton, second], 10)
        assert not alive
        assert server.process.wait(30) == Exit.FAILED


def write(folder: pathlib.Path, runtime: str) -> str:
    """The file of the digits, run by ``runtime``."""
    model = yaml.safe_load(FIRST.read_text())
    model["spec"]["source"]["uri"] = str(FIRST.parent / "model.onnx")
    model["spec"]["rollout"] = {"steps": [{"weight": 20, "for": "1s"}]}
    model["spec"] |= {"runtime": runtime, "batching": {"maxSize": 8}}
    file = folder / "model.yaml"
    file.write_text(yaml.safe_dump(model))
    return str(file)


def launchers(local: Local) -> list[psutil.Process]:
    """The processes that penstock up runs Triton in; Triton's server is a child of each."""
    return [one for one in map(psutil.Process, local.children()) if "triton" in one.cmdline()]


def server_of(launcher: psutil.Process) -> psutil.Process:
    (server,) = launcher.children()
    return server


async def test_a_rollout_from_onnxruntime_to_triton_fails_no_request_and_nothing_stays_when_it_is_deleted(
    local: Local, tmp_path: pathlib.Path
) -> None:
    await asyncio.to_thread(local.up, write(tmp_path, "onnxruntime"))
    first = await asyncio.to_thread(local.serving, "digits")
    ended = asyncio.Event()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", rate=50)
    running = asyncio.create_task(load.run(ended.is_set))
    await asyncio.to_thread(local, "apply", "-f", write(tmp_path, "triton"))
    assert await asyncio.to_thread(local.serving, "digits") != first

    async def is_left() -> bool:
        return await asyncio.to_thread(local.servers, "digits") == []

    await until("the server of the first revision has ended", is_left)
    (launcher,) = await asyncio.to_thread(launchers, local)
    sent = load.sent

    async def more() -> bool:
        return load.sent > sent + 50

    await until("Triton alone answers", more)
    ended.set()
    await running
    assert load.failures == []

    environ, triton = launcher.environ(), server_of(launcher)
    stub = triton.children()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{local.port}") as client:
        assert (await client.get("/v2/models/digits/ready")).status_code == 200
        log = (local.data / "logs" / "default" / "digits").glob("*.log")
        ports = next(json.loads(line) for file in log for line in file.open() if line.startswith('{"http_port"'))
        metrics = (await client.get(f"http://127.0.0.1:{ports['metrics_port']}/metrics")).text
        assert 'nv_inference_request_success{model="digits",version="1"}' in metrics

        addresses = [f"127.0.0.1:{environ[port]}" for port in (Env.HTTP_PORT, Env.GRPC_PORT)]
        told = await asyncio.to_thread(closed_calls.refusals, addresses[0], addresses[1])
        assert set(told) == {
            "This API is restricted",
            "This protocol is restricted",
            "Unable to find shared memory region: 'penstock'",
        }
        assert (await client.get("/v2/models/digits/ready")).status_code == 200

        await asyncio.to_thread(local, "delete", "model", "digits")
        gone = [launcher, triton, *stub]

        async def all_ended() -> bool:
            return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in gone)

        await until("Triton has ended", all_ended)
        assert (await client.get("/v2/models/digits/ready")).status_code == 404


async def test_whatever_of_triton_is_killed_under_load_is_replaced_and_no_answer_is_wrong(
    local: Local, tmp_path: pathlib.Path
) -> None:
    await asyncio.to_thread(local.up, write(tmp_path, "triton"))
    await asyncio.to_thread(local.serving, "digits")
    ended = asyncio.Event()
    load = Load(f"127.0.0.1:{local.port}", f"127.0.0.1:{local.grpc_port}", rate=50)
    running = asyncio.create_task(load.run(ended.is_set))
    for what in ("backend", "server", "launcher"):
        before = load.answers["first"]

        async def answers(before: int = before) -> bool:
            return load.answers["first"] > before + 25

        await until(f"it answers before its {what} is killed", answers)
        (launcher,) = await asyncio.to_thread(launchers, local)
        server = server_of(launcher)
        (backend,) = server.children()
        {"backend": backend, "server": server, "launcher": launcher}[what].kill()

        async def are_gone(left: tuple[psutil.Process, ...] = (backend, server, launcher)) -> bool:
            return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left)

        await until(f"nothing is left after its {what} was killed", are_gone)
    before = load.answers["first"]

    async def answers_again() -> bool:
        return load.answers["first"] > before + 25

    await until("it answers again", answers_again)
    ended.set()
    await running
    assert [failure for failure in load.failures if "no revision's answer" in failure] == []
