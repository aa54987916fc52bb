"""What a listener is told of requests, over the real listeners of both protocols."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import orjson
import pytest

from serving.contract import GRPC_SERVICE
from serving.errors import InvalidInput, UnknownModel
from serving.grpc.server import GrpcServer
from serving.http.listener import HttpListener, bound
from serving.http.plane import DataPlane, Limits
from serving.models.repository import Repository
from serving.protocols import grpc
from serving.scheduling import Admission
from serving.service import Service
from serving.telemetry.metrics import Metrics, ModelCounters
from serving.telemetry.observing import Call, End, Facts, Observer
from tests.rig import onnx_models

REQUEST = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}


@dataclass
class Heard:
    """A listener that keeps what it is told."""

    facts: list[Facts] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)

    hears_traced = False
    hears_failed = True
    every: int = 1

    def unheard(self) -> float:
        return self.every - 1

    def ended(self, call: Call, counters: ModelCounters | None, end: End) -> None:
        error = end.error
        assert end.received <= end.ended
        assert (counters is None) == isinstance(error, UnknownModel)
        self.facts.append(call.facts())
        self.headers.append(call.header("x-story"))
        self.errors.append("" if error is None else type(error).__name__)


@dataclass
class Served:
    http_port: int
    channel: Any
    heard: Heard

    async def post(self, path: str, body: bytes) -> int:
        def send() -> int:
            client = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
            client.request("POST", path, body, {"X-Story": "rest"})
            answer = client.getresponse()
            answer.read()
            client.close()
            return answer.status

        return await asyncio.to_thread(send)

    async def infer(self, model: str, timeout_s: float = 30, go: bool = False) -> None:
        message = grpc.InferRequest(model_name=model, id="8")
        if go:
            message.inputs.add(name="go", datatype="BOOL").contents.bool_contents.append(True)
        else:
            message.inputs.add(name="x", datatype="FP32", shape=[2])
            message.raw_input_contents.append(np.ones(2, "<f4").tobytes())
        method = self.channel.unary_unary(
            f"/{GRPC_SERVICE}/ModelInfer", lambda sent: sent.SerializeToString(), grpc.InferResponse.FromString
        )
        await method(message, timeout=timeout_s, metadata=(("x-story", "grpc"),))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    (tmp_path / "m.identity.json").write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}')
    onnx_models.endless(tmp_path / "slow.onnx", always=False)
    metrics, heard = Metrics(), Heard()
    admission = Admission(100, 10**9)
    repository = Repository([tmp_path / "m.identity.json", tmp_path / "slow.onnx"], None, metrics, {}, admission)
    await repository.start()
    service = Service(repository, Observer(heard))
    listener = HttpListener(DataPlane(service, metrics, Limits(), {}, admission))
    with bound("127.0.0.1", 0)[0] as sock:
        http_port = sock.getsockname()[1]
        await listener.accept({0: sock})
    server = GrpcServer(service, 100_000, {}, admission)
    grpc_port = server.bind("127.0.0.1", 0)
    await server.start()
    async with grpcio.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        yield Served(http_port, channel, heard)
    repository.find("slow", "").tick(1e18)
    await server.stop(0)
    await listener.drain(5)


async def test_an_answer_is_told_with_its_job_over_each_protocol(served: Served) -> None:
    assert await served.post("/v2/models/m/infer", orjson.dumps(REQUEST)) == 200
    assert await served.post("/v1/models/m:predict", b'{"instances": [1, 2]}') == 200
    await served.infer("m")

    told = [(facts.protocol, facts.model, facts.version, facts.id) for facts in served.heard.facts]
    assert told == [("v2", "m", "1", "7"), ("v1", "m", "1", ""), ("grpc", "m", "1", "8")]
    assert all(facts.way and facts.way.ended >= facts.way.begun for facts in served.heard.facts)
    assert all(facts.bytes_in and facts.bytes_out for facts in served.heard.facts)
    assert served.heard.errors == ["", "", ""]
    assert served.heard.headers == ["rest", "rest", "grpc"]


async def test_an_error_is_told_whether_or_not_the_model_was_found(served: Served) -> None:
    assert await served.post("/v2/models/m/infer", b"{") == 400
    assert await served.post("/v2/models/none/infer", orjson.dumps(REQUEST)) == 404
    for model in ("none", "slow"):
        with pytest.raises(grpcio.RpcError):
            await served.infer(model)

    told = [(facts.protocol, facts.model, facts.version) for facts in served.heard.facts]
    assert told == [("v2", "m", "1"), ("v2", "none", ""), ("grpc", "none", ""), ("grpc", "slow", "1")]
    assert served.heard.errors == ["InvalidInput", "UnknownModel", "UnknownModel", "InvalidInput"]


async def test_a_call_that_its_client_gave_up_is_told_once(served: Served) -> None:
    with pytest.raises(grpcio.RpcError):
        await served.infer("slow", timeout_s=0.2, go=True)
    async with asyncio.timeout(30):
        while not served.heard.errors:
            await asyncio.sleep(0.005)
    await served.infer("m")

    assert served.heard.errors[0] in ("Cancelled", "DeadlineExceeded")
    assert served.heard.errors[1:] == [""]


def test_a_listener_hears_its_sample_and_what_is_notable_or_traced_or_failed() -> None:
    heard, counters = Heard(every=4), ModelCounters()
    heard.hears_traced = True
    observer = Observer(heard)
    counters.notable_s = 1.0

    def answer(id: str, took_s: float = 0.0, traced: bool = False) -> None:
        now = time.perf_counter()
        observer.answered(_Call(id, traced), counters, now - took_s, now)

    answer("first")
    answer("slow", took_s=2)
    answer("traced", traced=True)
    answer("fourth")
    observer.refused(_Call("failed", False), counters, time.perf_counter(), InvalidInput("wrong"))
    for id in ("sixth", "seventh", "eighth", "ninth"):
        answer(id)

    assert [facts.id for facts in heard.facts] == ["slow", "traced", "fourth", "failed", "eighth"]
    assert (counters.successes, counters.failures) == (8, {"OTHER": 1})


def test_a_listener_that_wants_no_failures_hears_of_those_that_are_slow_or_of_its_sample() -> None:
    heard, counters = Heard(every=3), ModelCounters()
    heard.hears_failed = False
    observer = Observer(heard)
    counters.notable_s = 1.0

    for id, took_s in (("quick", 0.0), ("slow", 2.0), ("third", 0.0), ("fourth", 0.0)):
        observer.refused(_Call(id, False), counters, time.perf_counter() - took_s, InvalidInput("wrong"))

    assert [facts.id for facts in heard.facts] == ["slow", "third"]
    assert counters.failures == {"OTHER": 4}


@dataclass
class _Call:
    id: str
    traced: bool

    def facts(self) -> Facts:
        return Facts("v2", "/", "/", "m", "1", self.id, 0, 0, None)

    def header(self, name: str) -> str | None:
        return None
