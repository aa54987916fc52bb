"""The gRPC port against grpcio's own client, without any message class but ours."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import pytest

from serving.contract import GRPC_SERVICE
from serving.grpc.server import GrpcServer
from serving.models.repository import Repository
from serving.protocols import grpc
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics
from tests.rig import onnx_models

UNKNOWN = "Request for unknown model: 'q' is not served here; GET /v2/models lists what is served: m, rows, slow"


class Served:
    def __init__(self, channel: Any, repository: Repository, metrics: Metrics) -> None:
        self.channel, self.repository, self.metrics = channel, repository, metrics

    def infer(self, message: Any, timeout: float | None = 30) -> Any:
        return self._method("unary_unary", "ModelInfer", grpc.InferResponse)(message, timeout=timeout)

    def stream(self, messages: Any) -> Any:
        return self._method("stream_stream", "ModelStreamInfer", grpc.StreamInferResponse)(messages, timeout=30)

    def call(self, method: str, **fields: Any) -> Any:
        request, answer = grpc.METHODS[method]
        return self._method("unary_unary", method, answer)(request(**fields), timeout=30)

    def _method(self, kind: str, method: str, answer: Any) -> Any:
        make = getattr(self.channel, kind)
        return make(f"/{GRPC_SERVICE}/{method}", lambda message: message.SerializeToString(), answer.FromString)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    (tmp_path / "rows.identity.json").write_text(
        '{"stream": true, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}'
    )
    onnx_models.endless(tmp_path / "slow.onnx", always=False)
    metrics = Metrics()
    repository = Repository(
        [tmp_path / "m.identity.json", tmp_path / "slow.onnx", tmp_path / "rows.identity.json"],
        None,
        metrics,
        {"limits": {"maxPending": 8, "timeout": "60s"}},
        admission := Admission(100, 10**9),
    )
    await repository.start()
    server = GrpcServer(Service(repository), 100_000, {"penstock-revision": "r1"}, admission)
    port = server.bind("127.0.0.1", 0)
    await server.start()
    async with grpcio.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(channel, repository, metrics)
    repository.find("slow", "").tick(1e18)
    await server.stop(0)


def request(model: str = "m", size: int = 2, **fields: Any) -> Any:
    return grpc.InferRequest(
        model_name=model,
        inputs=[{"name": "x", "datatype": "FP32", "shape": [size]}],
        raw_input_contents=[np.ones(size, "<f4").tobytes()],
        **fields,
    )


def endless() -> Any:
    go = {"name": "go", "datatype": "BOOL", "shape": [], "contents": {"bool_contents": [True]}}
    return grpc.InferRequest(model_name="slow", inputs=[go])


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_inference_is_answered_with_the_revision_in_the_metadata(served: Served) -> None:
    call = served.infer(request(id="7"))

    assert await call == grpc.InferResponse(
        model_name="m",
        model_version="1",
        id="7",
        outputs=[{"name": "x", "datatype": "FP32", "shape": [2]}],
        raw_output_contents=[np.ones(2, "<f4").tobytes()],
    )
    assert dict(await call.initial_metadata()) == {"penstock-revision": "r1"}


async def test_the_methods_of_management_answer(served: Served) -> None:
    assert (await served.call("ServerReady")).ready
    assert (await served.call("ModelMetadata", name="m")).platform == "penstock_identity"
    assert [entry.name for entry in (await served.call("RepositoryIndex")).models] == ["m", "rows", "slow"]


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (request("q"), grpcio.StatusCode.NOT_FOUND, UNKNOWN),
        (request(model_version="9"), grpcio.StatusCode.NOT_FOUND,
         "Request for unknown model: 'm' has no version '9'; it has 1"),
        (grpc.InferRequest(model_name="m"), grpcio.StatusCode.INVALID_ARGUMENT,
         "the request has no inputs, expected at least one tensor"),
    ],
)  # fmt: skip
async def test_an_error_has_its_code_and_sentence(
    served: Served, message: Any, code: grpcio.StatusCode, details: str
) -> None:
    with pytest.raises(grpcio.aio.AioRpcError) as refused:
        await served.infer(message)

    assert (refused.value.code(), refused.value.details()) == (code, details)


async def test_a_message_beyond_the_limit_is_refused(served: Served) -> None:
    with pytest.raises(grpcio.aio.AioRpcError) as refused:
        await served.infer(request(size=30_000))

    assert refused.value.code() is grpcio.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_whose_time_is_over_or_that_is_cancelled_is_dropped(served: Served) -> None:
    counters = served.metrics.of("slow", "1")
    with pytest.raises(grpcio.aio.AioRpcError) as refused:
        await served.infer(endless(), timeout=0.3)
    assert refused.value.code() is grpcio.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: counters.pending == 0)

    call = served.infer(endless())
    await until(lambda: counters.pending == 1)
    call.cancel()

    await until(lambda: counters.pending == 0)
    assert counters.successes == 0


async def test_a_stream_answers_each_request_in_turn_and_outlives_a_wrong_one(served: Served) -> None:
    async def messages() -> AsyncIterator[Any]:
        for number in range(3):
            yield request("q" if number == 1 else "m", id=str(number))

    answers = [answer async for answer in served.stream(messages())]

    assert [(answer.infer_response.id, answer.error_message) for answer in answers] == [
        ("0", ""),
        ("1", UNKNOWN),
        ("2", ""),
    ]


def told(message: Any) -> Any:
    """What a message of a stream says: the id, whether it is the last to its request, and the values it has."""
    answer = message.infer_response
    values = [np.frombuffer(raw, "<f4").tolist() for raw in answer.raw_output_contents]
    return answer.id, answer.parameters["triton_final_response"].bool_param, values


async def test_a_model_that_streams_answers_one_request_with_several_messages(served: Served) -> None:
    end = {"triton_enable_empty_final_response": {"bool_param": True}}
    sent = [request("rows", 2, id="1"), request("m", 1, id="2"), request("rows", 1, id="3", parameters=end)]

    answers = [message async for message in served.stream(iter(sent))]

    assert [told(message) for message in answers] == [
        ("1", False, [[1.0]]), ("1", False, [[1.0]]), ("2", True, [[1.0]]), ("3", False, [[1.0]]), ("3", True, []),
    ]  # fmt: skip
    assert (answers[-1].infer_response.model_name, answers[-1].infer_response.model_version) == ("rows", "1")


async def test_a_unary_call_of_a_model_that_streams_needs_exactly_one_response(served: Served) -> None:
    answer = await served.infer(request("rows", 1))
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [1.0]

    with pytest.raises(grpcio.aio.AioRpcError) as refused:
        await served.infer(request("rows", 2))

    assert refused.value.code() is grpcio.StatusCode.INVALID_ARGUMENT
    assert "ask with generate_stream or ModelStreamInfer" in str(refused.value.details())


async def test_a_stream_that_its_client_cancels_ends(served: Served) -> None:
    call = served.stream(iter([request("rows", 20_000)]))
    await call.read()
    counters = served.repository.find("rows", "").counters

    call.cancel()

    await until(lambda: counters.pending == 0 and counters.failures.get("CANCELED") == 1)
