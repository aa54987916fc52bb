"""Connections on which a test sees and says every byte, against a listener in its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from serving.http.listener import HttpListener
from serving.http.plane import DataPlane, Limits
from serving.models.repository import Repository
from serving.protocols import grpc

LIMITS = Limits(max_request_bytes=200_000, max_held_bytes=300_000)
INFER = "/v2/models/m/infer"
REQUEST = {"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}
ANSWER = {
    "model_name": "m",
    "model_version": "1",
    "id": "7",
    "outputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}],
}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Client:
    """A client that sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def answer(self) -> Answer:
        async with asyncio.timeout(30):
            status = int((await self.reader.readline()).split()[1])
            headers = await self._headers()
            if status == 100:
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                return Answer(status, headers, body, await self._headers())
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))

    async def _headers(self) -> dict[str, str]:
        found = {}
        while line := (await self.reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            found[name.lower()] = value
        return found

    async def closed(self) -> bytes:
        """What came until the server closed the connection."""
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
            return b""


@dataclass
class Served:
    port: int
    plane: DataPlane
    listener: HttpListener
    repository: Repository
    stack: contextlib.AsyncExitStack

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.stack.callback(writer.close)
        await until(lambda: len(self.plane.connections) > 0)
        return Client(reader, writer)

    def pass_time(self, seconds: float) -> None:
        self.plane.sweep(asyncio.get_running_loop().time() + seconds)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def infer(document: Any = REQUEST, path: str = INFER, **headers: str) -> bytes:
    return request("POST", path, orjson.dumps(document), **headers)


def slow(go: bool) -> bytes:
    return infer({"inputs": [{"name": "go", "datatype": "BOOL", "shape": [], "data": [go]}]}, "/v2/models/slow/infer")


def call(method: str, message: Any, **headers: str) -> bytes:
    payload = message.SerializeToString()
    return request(
        "POST",
        f"/inference.GRPCInferenceService/{method}",
        b"\0" + struct.pack(">I", len(payload)) + payload,
        content_type="application/grpc",
        **headers,
    )


def grpc_request(**fields: Any) -> Any:
    return grpc.InferRequest(
        **{
            "model_name": "m",
            "id": "7",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}],
            "raw_input_contents": [np.array([1, 2], "<f4").tobytes()],
            **fields,
        }
    )
