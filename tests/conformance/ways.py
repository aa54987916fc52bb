"""The two ways by which a gRPC call comes to a model server: to its own port, and through the router as HTTP/1.1."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import grpc as grpcio
import numpy as np

from serving.contract import GRPC_SERVICE
from serving.protocols import grpc
from tests.rig import model_server
from tests.rig.model_server import DEADLINE_S, ModelServer

MAX_REQUEST_BYTES = 8 * 2**20
MAX_PENDING = 3

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a client has of a call when it has ended."""

    code: str
    details: str
    answer: Any = None
    initial: dict[str, str | bytes] = dataclasses.field(default_factory=dict)
    trailing: dict[str, str | bytes] = dataclasses.field(default_factory=dict)

    @property
    def status(self) -> tuple[str, str]:
        """Code and details."""
        return self.code, self.details


@dataclasses.dataclass(frozen=True)
class Way:
    """``echo`` and ``slow``, which never ends where its input ``go`` is true, by one of two ways."""

    name: str
    authority: str
    server: ModelServer
    opened: grpcio.Channel | None = None

    @property
    def routed(self) -> bool:
        """Whether the router is in between."""
        return self.name == "routed"

    @functools.cached_property
    def channel(self) -> grpcio.Channel:
        """One connection, for all tests of a way unless it was opened for one."""
        return self.opened or grpcio.insecure_channel(
            self.authority, options=[("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
        )

    def method(self, name: str) -> Any:
        """A unary method; /SERVICE/METHOD for one that is not of the protocol."""
        _, answer = grpc.METHODS.get(name, grpc.METHODS["ModelInfer"])
        path = name if name.startswith("/") else f"/{GRPC_SERVICE}/{name}"
        return self.channel.unary_unary(path, serialized, answer.FromString)

    def stream(self, messages: Iterator[Any], timeout: float = DEADLINE_S, **options: Any) -> Any:
        """A call of ModelStreamInfer."""
        path = f"/{GRPC_SERVICE}/ModelStreamInfer"
        made = self.channel.stream_stream(path, serialized, grpc.StreamInferResponse.FromString)
        return made(messages, timeout=timeout, **options)

    def call(self, message: Any, method: str = "ModelInfer", **options: Any) -> Outcome:
        """A unary call to its end."""
        return outcome(self.method(method).future(message, **{"timeout": DEADLINE_S, **options}))

    def pending(self) -> int:
        """How many requests ``slow`` has."""
        return self.counted('nv_inference_pending_request_count{model="slow"')

    def cancelled(self, model: str = "slow") -> int:
        """How many of a model's requests were given up."""
        return self.counted(f'nv_inference_request_failure{{model="{model}",version="1",reason="CANCELED"')

    def executed(self, model: str) -> int:
        """How often an engine ran."""
        return self.counted(f'nv_inference_exec_count{{model="{model}"')

    def counted(self, series: str) -> int:
        """The value of a metric whose name and labels begin so."""
        lines = [line for line in self.server.get("/metrics")[1].splitlines() if line.startswith(series)]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines)

    def until_pending(self, count: int) -> None:
        """Waits until ``slow`` has so many requests."""
        model_server.until(lambda: self.pending() == count, f"slow has {count} requests")


def serialized(message: Any) -> bytes:
    """A message, or bytes as they are."""
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def outcome(call: Any) -> Outcome:
    """What became of a call."""
    code = call.code()
    return Outcome(
        code.name,
        call.details(),
        call.result() if code is grpcio.StatusCode.OK else None,
        dict(call.initial_metadata() or ()),
        dict(call.trailing_metadata() or ()),
    )


def request(model: str = "echo", size: int = 2, **fields: Any) -> Any:
    """A ModelInferRequest with a tensor of ``size`` ones."""
    return grpc.InferRequest(
        model_name=model,
        inputs=[{"name": "x", "datatype": "FP32", "shape": [size]}],
        raw_input_contents=[np.ones(size, "<f4").tobytes()],
        **fields,
    )


def filling(size: int) -> Any:
    """A request whose message has exactly ``size`` bytes."""
    message = request(size=(size - 64) // 4)
    missing = size - message.ByteSize()
    message.id = "i" * (missing - 2)
    assert message.ByteSize() == size
    return message


def answer(size: int = 2, **fields: Any) -> Any:
    """What ``request`` gets."""
    return grpc.InferResponse(
        model_name="echo",
        model_version="1",
        outputs=[{"name": "x", "datatype": "FP32", "shape": [size]}],
        raw_output_contents=[np.ones(size, "<f4").tobytes()],
        **fields,
    )


def endless() -> Any:
    """A request that occupies the engine of ``slow`` until it is cancelled."""
    go = {"name": "go", "datatype": "BOOL", "shape": [], "contents": {"bool_contents": [True]}}
    return grpc.InferRequest(model_name="slow", inputs=[go])
