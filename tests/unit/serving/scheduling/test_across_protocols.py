"""Batches of requests that came by different protocols, through the real listeners and ONNX Runtime.

Each of the tests named after what other servers got wrong there was a bug of theirs once.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc as grpcio
import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.contract import GRPC_SERVICE
from serving.grpc.server import GrpcServer
from serving.http.listener import HttpListener, bound
from serving.http.plane import DataPlane, Limits
from serving.models.repository import Repository
from serving.protocols import grpc
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics, ModelCounters
from tests.rig import onnx_models

INFER = "/v2/models/m/infer"
WEIGHTS = np.array([[1, 10, 100], [2, 20, 200]], np.float32)
ROWS = 3


@dataclass
class Served:
    """A model whose calls have exactly three rows: it waits for them as long as it takes."""

    rest: httpx.AsyncClient
    channel: Any
    counters: ModelCounters

    async def v2(self, x: list[float], **more: Any) -> Any:
        document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": x}], **more}
        answer = await self.rest.post(INFER, json=document)
        assert answer.status_code == 200, answer.text
        return answer

    async def grpc(self, x: list[float], **more: Any) -> Any:
        message = grpc.InferRequest(
            model_name="m",
            inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2]}],
            raw_input_contents=[np.array(x, "<f4").tobytes()],
            **more,
        )
        method = self.channel.unary_unary(
            f"/{GRPC_SERVICE}/ModelInfer", lambda sent: sent.SerializeToString(), grpc.InferResponse.FromString
        )
        return await method(message, timeout=30)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        "g",
        [onnx_models.value("x", TensorProto.FLOAT, ["n", 2])],
        [
            onnx_models.value("label", TensorProto.INT64, ["n"]),
            onnx_models.value("scores", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx_models.save(tmp_path / "m" / "model.onnx", graph)
    metrics, admission = Metrics(), Admission(100, 10**9)
    said = {"batching": {"maxSize": ROWS, "maxDelay": "1h"}, "limits": {"timeout": "60s"}}
    repository = Repository([tmp_path], None, metrics, said, admission)
    await repository.start()
    service = Service(repository)
    listener = HttpListener(DataPlane(service, metrics, Limits(), {}, admission))
    sock = bound("127.0.0.1", 0)[0]
    http_port = sock.getsockname()[1]
    await listener.accept({0: sock})
    server = GrpcServer(service, 100_000, {}, admission)
    port = server.bind("127.0.0.1", 0)
    await server.start()
    async with (
        grpcio.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as rest,
    ):
        yield Served(rest, channel, metrics.of("m", "1"))
    await server.stop(0)
    await listener.drain(0)


def scores(x: list[float]) -> list[float]:
    return [float(score) for score in np.array(x, np.float32) @ WEIGHTS]


async def test_requests_of_all_protocols_share_one_call_of_the_engine(served: Served) -> None:
    v2, v1, rpc = await asyncio.gather(
        served.v2([1, 2], id="a"),
        served.rest.post("/v1/models/m:predict", json={"instances": [[3, 4]]}),
        served.grpc([5, 6], id="c"),
    )

    assert (served.counters.execs, served.counters.inferences) == (1, 3)
    assert v2.json() == {
        "model_name": "m",
        "model_version": "1",
        "id": "a",
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [2]},
            {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": scores([1, 2])},
        ],
    }
    assert v1.json() == {"predictions": [{"label": 2, "scores": scores([3, 4])}]}
    assert rpc.id == "c"
    assert [np.frombuffer(rpc.raw_output_contents[1], "<f4").tolist()] == [scores([5, 6])]


async def test_each_keeps_its_own_parameters_whole(served: Served) -> None:
    """MLServer 1541: parameters were cut to the batch, and those that cannot be cut failed it."""
    long = {"note": "as long as it is", "number": 5, "priority": 3}
    binary, plain, _ = await asyncio.gather(
        served.v2([1, 2], parameters={**long, "binary_data_output": True}),
        served.v2([3, 4], parameters=long),
        served.v2([5, 6]),
    )

    length = int(binary.headers["inference-header-content-length"])
    assert np.frombuffer(binary.content[length + 8 :], "<f4").tolist() == scores([1, 2])
    assert plain.json()["outputs"][1]["data"] == scores([3, 4])
    assert served.counters.execs == 1


async def test_each_gets_an_answer_of_its_own_and_none_gets_that_of_all(served: Served) -> None:
    """MLServer 1306: of three equal requests one was answered with three rows, the others with none."""
    answers = await asyncio.gather(*[served.grpc([1, 2]) for _ in range(3)])

    assert served.counters.execs == 1
    assert [[list(tensor.shape) for tensor in answer.outputs] for answer in answers] == [[[1], [1, 3]]] * 3
    assert [np.frombuffer(answer.raw_output_contents[1], "<f4").tolist() for answer in answers] == [scores([1, 2])] * 3


async def test_each_gets_the_outputs_it_asked_for_in_its_own_order(served: Served) -> None:
    """MLServer 514: the outputs asked for were forgotten in a batch."""
    label, both, some = await asyncio.gather(
        served.v2([1, 2], outputs=[{"name": "label"}]),
        served.v2([3, 4], outputs=[{"name": "scores"}, {"name": "label"}]),
        served.grpc([5, 6], outputs=[{"name": "scores"}]),
    )

    assert served.counters.execs == 1
    assert [tensor["name"] for tensor in label.json()["outputs"]] == ["label"]
    assert [(tensor["name"], tensor["data"]) for tensor in both.json()["outputs"]] == [
        ("scores", scores([3, 4])),
        ("label", [2]),
    ]
    assert [tensor.name for tensor in some.outputs] == ["scores"]
    assert np.frombuffer(some.raw_output_contents[0], "<f4").tolist() == scores([5, 6])


async def test_v2_requests_are_joined_like_any_other(served: Served) -> None:
    """KServe 2275: only V1 requests were."""
    answers = await asyncio.gather(*[served.v2([number, 1], id=str(number)) for number in range(ROWS)])

    assert [(answer.json()["id"], answer.json()["outputs"][1]["data"]) for answer in answers] == [
        (str(number), scores([number, 1])) for number in range(ROWS)
    ]
    assert (served.counters.execs, served.counters.inferences, sorted(served.counters.batches)) == (1, ROWS, [ROWS])
