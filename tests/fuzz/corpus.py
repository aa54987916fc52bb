"""Where a search begins: well-formed inputs of each kind, and the words to put others together from."""

from __future__ import annotations

import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import orjson
from onnx import TensorProto

from serving.protocols import grpc
from tests.rig import onnx_models

FOUND = Path(__file__).parent / "found"
"""Inputs that once broke something or led somewhere new, ``found/TARGET/NAME``."""

_X = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}
_RAW = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
_ALL = [
    {"name": "b", "datatype": "BOOL", "shape": [1, 2], "data": [[True, False]]},
    {"name": "i", "datatype": "INT64", "shape": [2], "data": [-(2**63), 2**63 - 1]},
    {"name": "u", "datatype": "UINT64", "shape": [1], "data": [2**64 - 1]},
    {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "\u00e9"]},
    {"name": "e", "datatype": "FP64", "shape": [0], "data": []},
]


def _v2() -> list[bytes]:
    parameters = {"priority": 1, "timeout": 1000, "binary_data_output": True}
    wanted = [{"name": "x", "parameters": {"binary_data": True, "classification": 0}}]
    return [
        orjson.dumps({"id": "7", "inputs": [_X], "outputs": wanted, "parameters": parameters}),
        orjson.dumps({"inputs": _ALL}),
    ]


def _v2_binary() -> list[bytes]:
    head = orjson.dumps({"inputs": [_RAW]})
    text = orjson.dumps(
        {"inputs": [{**_RAW, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}]}
    )
    tensor = np.array([1, 2], "<f4").tobytes()
    return [
        struct.pack("<H", len(head)) + head + tensor,
        struct.pack("<H", len(text)) + text + struct.pack("<I", 2) + b"ab",
        b"\0\0\0" + tensor,
        b"\0\0\1" + b"abcdef",
    ]


def _v1() -> list[bytes]:
    return [
        b'\0{"instances": [1, 2.5]}',
        b'\0{"inputs": {"x": [1]}}',
        b'\1{"instances": [{"t": ["a", {"b64": "YQ=="}], "n": 3}]}',
        b'\2{"inputs": [[[true]], [[false]]]}',
    ]


def _grpc() -> list[bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2]}
    raw = grpc.InferRequest(
        model_name="m",
        id="7",
        inputs=[tensor],
        raw_input_contents=[np.array([1, 2], "<f4").tobytes()],
        parameters={"priority": {"int64_param": 1}},
        outputs=[{"name": "x"}],
    )
    typed = grpc.InferRequest(model_name="m", inputs=[{**tensor, "contents": {"fp32_contents": [1.0, 2.0]}}])
    return [raw.SerializeToString(), typed.SerializeToString()]


def _http() -> list[bytes]:
    body = orjson.dumps({"inputs": [_X]})
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n"
    message = _grpc()[0]
    framed = b"\0" + struct.pack(">I", len(message)) + message
    call = b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\ncontent-type: application/grpc\r\n"
    infer = head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    packed = gzip.compress(body)
    rows = b'{"instances": [1]}'
    return [
        b"\0\0" + infer * 2,
        b"\7\3" + infer,
        b"\0\0" + head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"\0\0" + head + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (len(packed), packed),
        b"\0\0" + head + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n{}\n",
        b"\0\0" + call + b"content-length: %d\r\n\r\n%b" % (len(framed), framed),
        b"\0\0POST /v1/models/m:predict HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(rows), rows),
        b"\0\0GET /v2/health/ready HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\nGET /v2/models HTTP/1.1\r\n\r\n",
        b"\0\4POST /v2/repository/index HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        b"\0\0OPTIONS * HTTP/1.1\r\nconnection: close\r\n\r\n",
    ]


def _onnx() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = [
            onnx_models.echo(Path(folder, "echo.onnx"), TensorProto.FLOAT),
            onnx_models.endless(Path(folder, "endless.onnx")),
        ]
        return [file.read_bytes() for file in files]


def seeds(target: str) -> list[bytes]:
    """Where the search of a target begins: its well-formed inputs, and what was found before."""
    body = _v2()[0]
    made = {
        "connection": _http,
        "v2_json": _v2,
        "v2_binary": _v2_binary,
        "v1_json": _v1,
        "generate_json": lambda: [b'\0{"id": "7", "x": [1, 2.5], "parameters": {"timeout": 1}}',
                                  b'\1{"t": ["a", "b"], "n": 3}'],
        "grpc_message": _grpc,
        "grpc_methods": lambda: [b"\6" + _grpc()[0], b"\1\n\1m"],
        "grpc_framing": lambda: [b"\0" + b"7S".ljust(9) + b"\0\0\0\0\2ab",
                                 b"\2" + b"100m".ljust(9) + b"\1" + struct.pack(">I", len(gzip.compress(body)))
                                 + gzip.compress(body)],
        "content_coding": lambda: [b"\0" + gzip.compress(body), b"\1" + zlib.compress(body)],
        "model_settings": lambda: [b'{"limits": {"maxPending": 64, "timeout": "1m30s"}}'],
        "identity_model": lambda: [b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}'],
        "onnx_file": _onnx,
    }[target]()  # fmt: skip
    return made + found(target)


def found(target: str) -> list[bytes]:
    """What the repository keeps of earlier searches."""
    folder = FOUND / target
    return [file.read_bytes() for file in sorted(folder.iterdir())] if folder.is_dir() else []


KEYS = [
    "inputs",
    "outputs",
    "name",
    "datatype",
    "shape",
    "data",
    "parameters",
    "binary_data_size",
    "binary_data",
    "binary_data_output",
    "id",
    "priority",
    "timeout",
    "classification",
    "shared_memory_region",
    "instances",
    "b64",
    "limits",
    "maxPending",
]
"""What the parsers look for in JSON."""
_JSON_WORDS = [
    *KEYS,
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BOOL",
    "BYTES",
    "INT8",
    "INT64",
    "UINT64",
    "true",
    "false",
    "null",
    "NaN",
    "1e308",
    "-1",
    "0.5",
    "18446744073709551616",
    "[[",
    "]]",
    "{}",
    '""',
    "\\ud800",
]
_HTTP_WORDS = [
    *(
        "GET /",
        "POST /",
        "HEAD /",
        "OPTIONS * ",
        "CONNECT x:1 ",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "\r\n\r\n",
        "0\r\n\r\n",
    ),
    *("content-length: ", "transfer-encoding: chunked\r\n", "connection: close\r\n", "connection: keep-alive\r\n"),
    *("expect: 100-continue\r\n", "upgrade: websocket\r\n", "connection: upgrade\r\n", "accept-encoding: gzip\r\n"),
    *("inference-header-content-length: ", "content-encoding: gzip\r\n", "content-type: application/grpc\r\n"),
    *(
        "grpc-timeout: 1S\r\n",
        "grpc-encoding: gzip\r\n",
        "/v2/models/m/infer",
        "/v2/models/m/ready",
        "/v1/models/m:predict",
    ),
    *(
        "/metrics",
        "/v2/health/live",
        "/docs",
        "/openapi.json",
        "/v2/repository/models/m/load",
        "/v2",
        "http://x/v2",
        "%00",
        "?",
    ),
    *("/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ServerLive"),
]


def words(target: str) -> list[bytes]:
    """What a target's language is made of, for the mutator."""
    if target == "connection":
        return [word.encode() for word in _HTTP_WORDS]
    return [word.encode() for word in _JSON_WORDS]
