"""grpcio's core from our loop, against grpcio's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc as grpcio
import pytest

from serving.grpc.core import Call, Core, Gone
from tests.rig.waiting import until

LONG_S = 30.0


class Served:
    """A port that keeps its calls, and answers those of ``/echo`` at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, bytes | None]] = []
        self.gone: list[str] = []
        self.core = Core((("grpc.so_reuseport", 0),), (("who", "core"),), self._answer)
        self.port = self.core.bind("127.0.0.1:0")
        self.core.start()
        self.channel: Any = grpcio.aio.insecure_channel(f"127.0.0.1:{self.port}")

    def _answer(self, call: Call, message: bytes | None) -> None:
        if call.method == "/echo":
            call.finish(0, message=message)
            return
        call.on_gone = lambda: self.gone.append(call.method)
        self.calls.append((call, message))

    def unary(self, method: str, message: bytes = b"hello", **options: Any) -> Any:
        return self.channel.unary_unary(method)(message, **{"timeout": LONG_S, **options})

    async def called(self) -> tuple[Call, bytes | None]:
        async def has_one() -> bool:
            return bool(self.calls)

        await until("a call has come", has_one)
        return self.calls.pop()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    yield made
    await made.channel.close()
    await made.core.stop(0)


async def test_a_call_comes_with_its_message_and_metadata_and_is_answered_in_one_go(served: Served) -> None:
    client = served.unary("/m", metadata=(("a", "1"), ("b-bin", b"\0\xff")))
    call, message = await served.called()
    assert (call.method, message) == ("/m", b"hello")
    assert {name: value for name, value in call.metadata if name in ("a", "b-bin")} == {"a": "1", "b-bin": b"\0\xff"}
    assert 0 < (call.time_remaining() or 0) <= LONG_S

    call.finish(0, message=b"answer")

    assert await client == b"answer"
    assert dict(await client.initial_metadata()) == {"who": "core"}
    call.finish(13, "a second end is none")


async def test_a_call_may_end_in_an_error(served: Served) -> None:
    client = served.unary("/m")
    call, _ = await served.called()
    call.finish(5, "nothing by the name of ä")

    assert (await client.code(), await client.details()) == (grpcio.StatusCode.NOT_FOUND, "nothing by the name of ä")


async def test_an_answer_is_compressed_where_it_is_asked_for(served: Served) -> None:
    client = served.unary("/m")
    call, _ = await served.called()
    call.compression = "gzip"
    call.finish(0, message=bytes(100_000))

    assert await client == bytes(100_000)


async def test_a_client_that_goes_is_told_of_once_and_cannot_be_answered(served: Served) -> None:
    client = served.unary("/m")
    call, _ = await served.called()
    client.cancel()

    async def has_gone() -> bool:
        return served.gone == ["/m"]

    await until("the call has gone", has_gone)
    call.finish(0, message=b"too late")
    with pytest.raises(Gone):
        await call.write(b"too late")


async def test_a_stream_is_read_and_written_as_it_comes(served: Served) -> None:
    client = served.channel.stream_stream("/m")(timeout=LONG_S)
    await client.write(b"0")
    call, message = await served.called()
    await call.write(b"answer to " + (message or b""))
    assert await client.read() == b"answer to 0"
    await client.write(b"1")
    assert await call.read() == b"1"
    await client.done_writing()
    assert await call.read() is None
    call.finish(0)
    assert await client.code() is grpcio.StatusCode.OK


async def test_a_read_that_waits_ends_when_the_client_goes(served: Served) -> None:
    client = served.channel.stream_stream("/m")(timeout=LONG_S)
    await client.write(b"0")
    call, _ = await served.called()
    reading = asyncio.ensure_future(call.read())
    client.cancel()
    assert await reading is None


async def test_a_port_that_stops_lets_calls_end_and_cancels_none_of_them(served: Served) -> None:
    client = served.unary("/m")
    call, _ = await served.called()
    stopping = asyncio.ensure_future(served.core.stop(LONG_S))

    async def is_closed() -> bool:
        other = grpcio.aio.insecure_channel(f"127.0.0.1:{served.port}")
        method: Any = other.unary_unary("/echo")
        try:
            await method(b"", timeout=1)
        except grpcio.aio.AioRpcError as error:
            return error.code() is grpcio.StatusCode.UNAVAILABLE
        finally:
            await other.close()
        return False

    await until("no new call is taken", is_closed)
    assert not stopping.done()
    call.finish(0, message=b"to its end")
    assert await client == b"to its end"
    await stopping
    assert served.gone == []


async def test_a_port_that_stops_waits_no_longer_than_it_may(served: Served) -> None:
    client = served.unary("/m")
    call, _ = await served.called()
    await served.core.stop(0.05)
    assert await client.code() is grpcio.StatusCode.UNAVAILABLE
    assert served.gone == ["/m"]
    call.finish(0, message=b"too late")


async def test_a_call_that_fails_here_takes_no_other_with_it(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    def fails(call: Call, message: bytes | None) -> None:
        raise ValueError("a bug")

    keep, served.core.answer = served.core.answer, fails
    client = served.unary("/m")
    assert await client.code() is grpcio.StatusCode.INTERNAL
    assert await client.details() == "the server failed to answer this call; its log says why"
    served.core.answer = keep
    assert await served.unary("/echo") == b"hello"
    assert "a gRPC call failed" in caplog.text
