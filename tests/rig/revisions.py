"""Revisions of a small model that differ in one respect each, and load that notes which of them answered.

The model takes ``x`` [1, 64] and gives ``y`` [1, 64]. A request is *special* where its first number is 1, otherwise 0:
``fails`` answers every request but those.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving.contract import MODEL_METADATA_KEY, REVISION_HEADER

SIZE = 64
_PRODUCTS = 20
"""Products of matrices, 64 × 64 each: together a fraction of a millisecond."""


def write(path: pathlib.Path, *, seed: int = 0, work: float = 1.0, fails: bool = False, name: str = "one") -> str:
    """Put a revision there and return its path.

    Its weights are those of ``seed``, it takes ``work`` times as long, and it may fail special requests. ``name``
    changes its bytes and nothing else.
    """
    weights = np.random.default_rng(seed).standard_normal((SIZE, SIZE)) / np.sqrt(SIZE)
    nodes = [helper.make_node("Transpose", ["x"], ["column"]), helper.make_node("MatMul", ["column", "x"], ["p0"])]
    products = round(_PRODUCTS * work)
    for place in range(products):
        nodes.append(helper.make_node("MatMul", [f"p{place}", "weights"], [f"q{place}"]))
        nodes.append(helper.make_node("Tanh", [f"q{place}"], [f"p{place + 1}"]))
    nodes.append(helper.make_node("ReduceMean", [f"p{products}"], ["mean"], axes=[0], keepdims=1))
    given = {"weights": weights.astype(np.float32)}
    if fails:
        given |= {"first": np.array([0], np.int64), "far": np.array([1000], np.int64), "zeros": np.zeros(1, np.float32)}
        nodes.append(helper.make_node("Gather", ["x", "first"], ["number"], axis=1))
        nodes.append(helper.make_node("Cast", ["number"], ["is_special"], to=TensorProto.INT64))
        nodes.append(helper.make_node("Mul", ["is_special", "far"], ["place"]))
        nodes.append(helper.make_node("Gather", ["zeros", "place"], ["zero"]))
        nodes.append(helper.make_node("Add", ["mean", "zero"], ["y"]))
    else:
        nodes.append(helper.make_node("Identity", ["mean"], ["y"]))
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [1, SIZE]) for port in "xy"]
    initializers = [numpy_helper.from_array(array, port) for port, array in given.items()]
    graph = helper.make_graph(nodes, name, ports[:1], ports[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return str(path)


@dataclasses.dataclass(frozen=True)
class Met:
    """A revision's answer: when it came, and how many had come of any."""

    at: float
    total: int


@dataclasses.dataclass
class Asking:
    """Open loop, half over REST to ``http`` and half over gRPC to ``grpc``, HOST:PORT; ``key`` is NAMESPACE/NAME.

    Every twentieth request of either protocol is special. Nothing is sent twice.
    """

    http: str
    grpc: str
    key: str
    rate: float = 200.0
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Answered well, by revision."""
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Special requests that the model itself failed, by revision."""
    failures: list[str] = dataclasses.field(default_factory=list)
    """Whatever else went wrong."""
    met: dict[str, tuple[Met, Met]] = dataclasses.field(default_factory=dict)
    """Each revision's first answer and its latest."""
    sent: int = 0

    def of(self, revision: str) -> int:
        """Requests that reached it."""
        return self.answers[revision] + self.refused[revision]

    @property
    def total(self) -> int:
        """Requests that reached any."""
        return self.answers.total() + self.refused.total()

    async def run(self, is_ended: Callable[[], bool]) -> None:
        """Send until then, and wait for the answers under way."""
        draw = np.random.default_rng(0)
        loop = asyncio.get_running_loop()
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        namespace, _, name = self.key.partition("/")
        url = f"http://{self.http}/{namespace}/{name}/v2/models/{name}/infer"
        async with (
            httpx.AsyncClient(timeout=30, limits=limits) as client,
            grpc.aio.insecure_channel(self.grpc) as channel,
            asyncio.TaskGroup() as group,
        ):
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            began = loop.time()
            while not is_ended():
                await asyncio.sleep(max(0.0, began + self.sent / self.rate - loop.time()))
                x = draw.standard_normal((1, SIZE)).astype(np.float32)
                x[0, 0] = special = self.sent % 40 in (0, 1)
                over_grpc = self.sent % 2
                group.create_task(
                    self._call(call, name, x, special) if over_grpc else self._post(client, url, x, special)
                )
                self.sent += 1

    async def _post(self, client: httpx.AsyncClient, url: str, x: Any, special: bool) -> None:
        item = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
        try:
            answer = await client.post(url, content=json.dumps({"inputs": [item]}).encode())
        except httpx.HTTPError as error:
            self.failures.append(f"REST: {error!r}")
            return
        self._note(answer.headers.get(REVISION_HEADER, ""), answer.is_success, special, answer.text)

    async def _call(self, call: Any, name: str, x: Any, special: bool) -> None:
        tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=x.shape)
        request = service_pb2.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[x.tobytes()])
        calling = call(request, timeout=30, metadata=((MODEL_METADATA_KEY, self.key),))
        said = ""
        try:
            await calling
        except grpc.aio.AioRpcError as error:
            said = f"{error.code()} {error.details()}"
        told = dict([*(await calling.initial_metadata()), *(await calling.trailing_metadata())])
        self._note(str(told.get(REVISION_HEADER, "")), not said, special, said)

    def _note(self, revision: str, well: bool, special: bool, said: str) -> None:
        if well and revision:
            self.answers[revision] += 1
        elif special and revision and "indices element out of data bounds" in said:
            self.refused[revision] += 1
        else:
            self.failures.append(f"{revision or 'no revision'}: {said}")
        if revision:
            now = Met(asyncio.get_running_loop().time(), self.total)
            self.met[revision] = self.met.get(revision, (now, now))[0], now
