"""Clients that know the right answer to each of their requests. Nothing is sent twice."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import numpy as np
import orjson

from benchmarks.endurance import models
from serving.contract import GRPC_SERVICE, MODEL_METADATA_KEY, STREAM_METHOD
from serving.protocols.grpc import InferRequest, InferResponse, StreamInferResponse

DEADLINE_S = 60.0
IN_A_STREAM = 16
_METADATA = ((MODEL_METADATA_KEY, "default/many"),)
_LENGTH = re.compile(rb"\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER_LENGTH = re.compile(rb"\ninference-header-content-length: *(\d+)", re.IGNORECASE)
_KEPT = 50


class Gate:
    """Through it goes who asks what a router cannot save; closed, it waits for those inside."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._inside = 0
        self._empty = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def passed(self) -> AsyncIterator[None]:
        """Inside."""
        while not self._free.is_set():
            await self._free.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            async with self._empty:
                self._empty.notify_all()

    @contextlib.asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Nobody is inside."""
        self._free.clear()
        async with self._empty:
            await self._empty.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            self._free.set()


@dataclasses.dataclass
class Score:
    """What became of the requests."""

    wanted: int
    rounds: int = 0
    """How often everything that can happen has happened."""
    sent: int = 0
    answered: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    whole_versions: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    linear_versions: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    known: set[int] = dataclasses.field(default_factory=set)
    """Versions of ``whole`` there have been."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """The first failures and wrong answers, in words."""

    def next(self) -> list[int] | None:
        """Inputs that no other request has; None when there have been enough, and everything has happened."""
        if self.sent >= self.wanted and self.rounds:
            return None
        self.sent += 1
        return [self.sent & 0xFFFF, self.sent >> 16, self.sent % 251, self.sent % 13]

    def whole(self, protocol: str, x: list[int], y: list[int]) -> None:
        """An answer of ``whole``."""
        version = models.whole_version(x, y)
        if version in self.known:
            self.whole_versions[version] += 1
        self._count(protocol, version in self.known, x, y)

    def linear(self, protocol: str, x: list[int], y: list[float]) -> None:
        """An answer of ``linear``."""
        version = models.linear_version(x, y)
        right = version is not None and 0 < version < models.MAX_LINEAR_VERSION
        if version is not None and right:
            self.linear_versions[version] += 1
        self._count(protocol, right, x, y)

    def fail(self, protocol: str, why: str) -> None:
        """No answer, or an error."""
        self.failed[protocol] += 1
        self._note(f"{protocol} failed: {why}")

    def _count(self, protocol: str, right: bool, x: list[int], y: object) -> None:
        if right:
            self.answered[protocol] += 1
        else:
            self.wrong[protocol] += 1
            self._note(f"{protocol} gave {y} for {x}")

    def _note(self, text: str) -> None:
        if len(self.notes) < _KEPT:
            self.notes.append(text[:500])


class _Refused(Exception):
    """An answer that is an error."""


class _Connection:
    """One HTTP/1.1 connection, opened again when the server closes it after an answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, headers: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Head and body of a good answer."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._ask(path, headers, body)
        except BaseException:
            self.close()
            raise

    async def _ask(self, path: str, headers: bytes, body: bytes) -> tuple[bytes, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            b"POST /default/many%b HTTP/1.1\r\nhost: localhost\r\n%bcontent-length: %d\r\n\r\n%b"
            % (path.encode(), headers, len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        if b"\nconnection: close" in head.lower():
            self.close()
        if head[9:12] != b"200":
            raise _Refused(f"{head[9:12].decode()} {answer[:300].decode(errors='replace')}")
        return head, answer

    def close(self) -> None:
        """Ends it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


Ask = Callable[[list[int]], Awaitable[None]]


async def _steadily(score: Score, protocol: str, ask: Ask, gate: Gate | None = None) -> None:
    while (x := score.next()) is not None:
        try:
            async with gate.passed() if gate is not None else contextlib.nullcontext():
                await ask(x)
        except (OSError, EOFError, TimeoutError, _Refused, ValueError, KeyError, grpc.RpcError) as error:
            score.fail(protocol, f"{type(error).__name__} {error}")


async def rest(score: Score, port: int, protocol: str) -> None:
    """REST in one of three forms: ``json``, ``binary`` or ``v1``."""
    connection = _Connection(port)

    async def json(x: list[int]) -> None:
        body = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1,4],"data":[%d,%d,%d,%d]}]}' % tuple(x)
        _, answer = await connection.ask("/v2/models/whole/infer", b"", body)
        score.whole(protocol, x, orjson.loads(answer)["outputs"][0]["data"])

    about = orjson.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
            "parameters": {"binary_data_output": True},
        }
    )
    length = b"inference-header-content-length: %d\r\n" % len(about)

    async def binary(x: list[int]) -> None:
        body = about + np.array(x, np.float32).tobytes()
        head, answer = await connection.ask("/v2/models/linear/infer", length, body)
        found = _HEADER_LENGTH.search(head)
        if found is None:
            raise _Refused("an answer without binary data")
        score.linear(protocol, x, np.frombuffer(answer, np.float32, offset=int(found[1])).tolist())

    async def v1(x: list[int]) -> None:
        body = b'{"instances":[[%d,%d,%d,%d]]}' % tuple(x)
        _, answer = await connection.ask("/v1/models/whole:predict", b"", body)
        score.whole(protocol, x, orjson.loads(answer)["predictions"][0])

    await _steadily(score, protocol, {"json": json, "binary": binary, "v1": v1}[protocol])
    connection.close()


async def grpc_unary(score: Score, protocol: str, channels: Callable[[], grpc.aio.Channel], gate: Gate | None) -> None:
    """Calls one after the other, each on the channel that ``channels`` gives."""

    async def ask(x: list[int]) -> None:
        call = channels().unary_unary(
            f"/{GRPC_SERVICE}/ModelInfer", InferRequest.SerializeToString, InferResponse.FromString
        )
        _check(score, protocol, x, await call(_message(x), timeout=DEADLINE_S, metadata=_METADATA))

    await _steadily(score, protocol, ask, gate)


async def grpc_streams(score: Score, protocol: str, channel: grpc.aio.Channel, gate: Gate) -> None:
    """Streams of several requests each, whose answers come in their order."""
    open_stream = channel.stream_stream(
        f"/{GRPC_SERVICE}/{STREAM_METHOD}", InferRequest.SerializeToString, StreamInferResponse.FromString
    )
    while inputs := [x for x in (score.next() for _ in range(IN_A_STREAM)) if x is not None]:
        done = 0
        try:
            async with gate.passed():
                stream = open_stream(iter([_message(x) for x in inputs]), timeout=DEADLINE_S, metadata=_METADATA)
                async for answer in stream:
                    if answer.error_message:
                        raise _Refused(answer.error_message)
                    _check(score, protocol, inputs[done], answer.infer_response)
                    done += 1
        except (TimeoutError, _Refused, ValueError, IndexError, grpc.RpcError) as error:
            score.fail(protocol, f"{type(error).__name__} {error}")
            done += 1
        for _ in inputs[done:]:
            score.fail(protocol, "no answer in a stream that ended")


def _message(x: list[int]) -> InferRequest:
    message = InferRequest(model_name="whole")
    tensor = message.inputs.add()
    tensor.name, tensor.datatype = "x", "INT64"
    tensor.shape.extend((1, models.WIDTH))
    message.raw_input_contents.append(np.array(x, np.int64).tobytes())
    return message


def _check(score: Score, protocol: str, x: list[int], answer: InferResponse) -> None:
    score.whole(protocol, x, np.frombuffer(answer.raw_output_contents[0], np.int64).tolist())


class Channels:
    """Channels to each replica directly, in turn."""

    def __init__(self) -> None:
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._turns: itertools.cycle[grpc.aio.Channel] = itertools.cycle(())

    async def lead_to(self, ports: list[int]) -> None:
        """These and no others."""
        for port in [port for port in self._channels if port not in ports]:
            await self._channels.pop(port).close()
        for port in ports:
            self._channels.setdefault(port, grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        self._turns = itertools.cycle(list(self._channels.values()))

    def next(self) -> grpc.aio.Channel:
        """The next one."""
        return next(self._turns)
