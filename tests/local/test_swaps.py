"""Models are swapped, loaded and unloaded while others, and they themselves, are asked over REST and gRPC: no request
fails, and each answer is computed from its own input by a version that was served while the request was on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from tests.rig import model_server, onnx_models
from tests.rig.model_server import ModelServer

SWAPS = {"none": 200, "process": 12}
CLIENTS = 4


class Served:
    """Which scales the model's weights may have at this moment."""

    def __init__(self) -> None:
        self.oldest = 1
        self.newest = 1


class Load:
    """Clients that ask for the model, each with another input every time, and check what they get."""

    def __init__(self, server: ModelServer, served: Served) -> None:
        self.http = triton_http_aio.InferenceServerClient(server.authority, conn_limit=64)
        self.grpc = triton_grpc_aio.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        self.served = served
        self.answers = 0
        self.wrong: list[str] = []
        self.ended = False

    @contextlib.asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        clients = [asyncio.ensure_future(self._ask(kind, n)) for kind in ("REST", "gRPC") for n in range(CLIENTS)]
        try:
            await self.more()
            yield
            await self.more()
        finally:
            self.ended = True
            await asyncio.gather(*clients)
            await self.http.close()
            await self.grpc.close()

    async def more(self) -> None:
        """Until every client had some more answers."""
        enough = self.answers + 20 * CLIENTS
        async with asyncio.timeout(60):
            while self.answers < enough and not self.wrong:
                await asyncio.sleep(0)

    async def _ask(self, kind: str, number: int) -> None:
        package: Any = triton_http if kind == "REST" else triton_grpc
        client: Any = self.http if kind == "REST" else self.grpc
        turn = 0
        while not self.ended and not self.wrong:
            turn += 1
            # One row is computed on the event loop, fifty go through the queue.
            x = np.array([[0, row, number + 1, turn] for row in range(1 if turn % 2 else 50)], np.float32)
            given = package.InferInput("x", list(x.shape), "FP32")
            given.set_data_from_numpy(x)
            oldest = self.served.oldest
            try:
                answer = await client.infer("m", [given], request_id=f"{number}-{turn}")
            except InferenceServerException as error:
                self.wrong.append(f"{kind}: {error}")
                return
            response = answer.get_response()
            version, identity = (
                (response["model_version"], response["id"]) if kind == "REST" else (response.model_version, response.id)
            )
            y = answer.as_numpy("y")
            scales = [int(version)] if version != "1" else range(oldest, self.served.newest + 1)
            if (
                identity != f"{number}-{turn}"
                or not any(np.allclose(y, x @ onnx_models.WEIGHTS * scale, rtol=1e-5) for scale in scales)
                or not oldest <= max(scales) <= self.served.newest
            ):
                self.wrong.append(f"{kind}: {x.tolist()} gave {y.tolist()}, version {version}, expected {scales}")
            self.answers += 1


def put(path: Path, scale: int) -> None:
    """Puts a model in place at once, as whoever deploys does."""
    onnx_models.linear(path.with_suffix(".new"), scale)
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_a_file_that_is_swapped_fails_no_request_and_mixes_no_answers(tmp_path: Path, isolation: str) -> None:
    path = tmp_path / "m" / "model.onnx"
    onnx_models.linear(path, 1)
    settings = f'{{"isolation": "{isolation}"}}'
    with model_server.running("serve", str(tmp_path), "--settings", settings) as server:
        process = psutil.Process(server.process.pid)
        served = Served()
        load = Load(server, served)
        async with load.steady():
            before = process.num_threads(), process.num_fds(), len(process.children())
            for scale in range(2, SWAPS[isolation] + 2):
                served.newest = scale
                await asyncio.to_thread(put, path, scale)
                await load.http.load_model("m")
                served.oldest = scale
                assert load.wrong == []
            after = process.num_threads(), process.num_fds(), len(process.children())
        assert load.wrong == []
        assert [many - few < 10 for many, few in zip(after, before, strict=True)] == [True] * 3, (before, after)


async def test_versions_that_come_and_go_and_other_models_that_do_fail_no_request(tmp_path: Path) -> None:
    onnx_models.linear(tmp_path / "m" / "1" / "model.onnx", 1)
    for name in ("a", "b"):
        onnx_models.linear(tmp_path / name / "model.onnx")
    with model_server.running("serve", str(tmp_path)) as server:
        served = Served()
        load = Load(server, served)
        async with load.steady():
            for version in range(2, 60):
                onnx_models.linear(tmp_path / "m" / str(version) / "model.onnx", version)
                served.newest = version
                await load.http.load_model("m")
                (tmp_path / "m" / str(version - 1) / "model.onnx").unlink()
                await load.http.load_model("m")
                served.oldest = version
                for name in ("a", "b"):
                    await load.http.unload_model(name)
                    assert not await load.http.is_model_ready(name)
                    await load.grpc.load_model(name)
                    assert await load.grpc.is_model_ready(name)
                assert load.wrong == []
        assert load.wrong == []
        index = await triton_index(server)
        assert sorted((entry["name"], entry["version"]) for entry in index) == [("a", "1"), ("b", "1"), ("m", "59")]


async def triton_index(server: ModelServer) -> list[dict[str, str]]:
    async with triton_http_aio.InferenceServerClient(server.authority) as client:
        found: list[dict[str, str]] = await client.get_model_repository_index()
        return found
