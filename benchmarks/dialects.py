"""How one request is said to a server and its answer read: V2 REST in JSON and binary, V2 gRPC, BentoML's JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np

from benchmarks.models import Floats, Model
from benchmarks.peers import engine
from serving.contract import GRPC_SERVICE
from serving.protocols.grpc import InferRequest, InferResponse

GRPC_METHOD = f"/{GRPC_SERVICE}/ModelInfer"
_LENGTH = "Inference-Header-Content-Length"
_TIMEOUT_S = 30.0


class WrongAnswer(Exception):
    """A server answered, and not with what ONNX Runtime computes from the same input."""


@dataclass(frozen=True)
class Request:
    """What goes over the wire, again and again."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> bytes:
        """The gRPC message in the body, without what frames it."""
        return self.body[5:]


def request(dialect: str, model: Model) -> Request:
    """``model.given`` in that dialect."""
    path = f"/v2/models/{model.name}/infer"
    described: dict[str, Any] = {"name": engine.INPUT, "shape": list(model.given.shape), "datatype": "FP32"}
    # The shortest text of the rounded number, not that of the float32 next to it.
    values = [float(text) for text in map("{:.6f}".format, model.given.ravel())]
    match dialect:
        case "json":
            body = {"inputs": [{**described, "data": values}]}
            return Request(path, {"Content-Type": "application/json"}, _compact(body))
        case "bento":
            body = {"input": np.array(values).reshape(model.given.shape).tolist()}
            return Request("/infer", {"Content-Type": "application/json"}, _compact(body))
        case "binary":
            raw = model.given.tobytes()
            wanted = {"name": engine.OUTPUT, "parameters": {"binary_data": True}}
            head = _compact(
                {"inputs": [{**described, "parameters": {"binary_data_size": len(raw)}}], "outputs": [wanted]}
            )
            return Request(path, {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}, head + raw)
        case "grpc":
            message = InferRequest(model_name=model.name)
            message.inputs.add(**described)
            message.raw_input_contents.append(model.given.tobytes())
            body = message.SerializeToString()
            framed = struct.pack(">BI", 0, len(body)) + body
            return Request(GRPC_METHOD, {"content-type": "application/grpc", "te": "trailers"}, framed)
    raise ValueError(f"'{dialect}' is no dialect; expected json, binary, grpc or bento")


def check(dialect: str, model: Model, port: int) -> None:
    """Asks the server on ``port`` once.

    Raises ``WrongAnswer`` for a wrong answer, ``httpx.HTTPError`` or ``grpc.RpcError`` where there is none.
    """
    asked = request(dialect, model)
    if dialect == "grpc":
        got = _over_grpc(asked, port)
    else:
        response = httpx.post(
            f"http://127.0.0.1:{port}{asked.path}", content=asked.body, headers=dict(asked.headers), timeout=_TIMEOUT_S
        )
        got = answer(dialect, response.raise_for_status())
    if got.size != model.expected.size or not np.allclose(got.ravel(), model.expected.ravel(), rtol=1e-4, atol=1e-4):
        raise WrongAnswer(f"port {port}, {dialect} {model.name}: {got.ravel()[:4]}…, not {model.expected.ravel()[:4]}…")


def answer(dialect: str, response: httpx.Response) -> Floats:
    """The tensor in an HTTP response."""
    length = response.headers.get(_LENGTH)
    if length is not None:
        return np.frombuffer(response.content, np.float32, offset=int(length))
    found = response.json()
    return np.array(found if dialect == "bento" else found["outputs"][0]["data"], np.float32)


def _over_grpc(asked: Request, port: int) -> Floats:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=unlimited) as channel:
        call: Any = channel.unary_unary(GRPC_METHOD, response_deserializer=InferResponse.FromString)
        message = call(asked.message, timeout=_TIMEOUT_S)
    if message.raw_output_contents:
        return np.frombuffer(message.raw_output_contents[0], np.float32)
    return np.array(message.outputs[0].contents.fp32_contents, np.float32)


def _compact(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
