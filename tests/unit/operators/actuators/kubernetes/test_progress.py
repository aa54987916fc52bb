"""Builders that are asked how far they are: a real one, and what else may answer at its address."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from operators.actuators.kubernetes.progress import Progresses
from operators.api.builder import Progress
from operators.api.plan import Key
from serving.variants import progress

DEADLINE_S = 20.0
TOLD = {"variant": "int8", "stage": "quantize", "share": 0.42, "left_s": 95.0}

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pod(name: str = "digits", address: str = "127.0.0.1", **state: Any) -> dict[str, Any]:
    labels = {"penstock.dev/build": "1", "penstock.dev/built-for": name}
    owner = {"kind": "Job", "uid": f"uid-{name}"}
    container = {"name": "build", "state": state or {"running": {}}}
    return {
        "metadata": {"name": f"{name}-x", "namespace": "team", "labels": labels, "ownerReferences": [owner]},
        "status": {"podIP": address, "containerStatuses": [container]},
    }


@contextlib.asynccontextmanager
async def asking(port: int, *pods: dict[str, Any]) -> AsyncIterator[tuple[Progresses, asyncio.Queue[Key]]]:
    changed: asyncio.Queue[Key] = asyncio.Queue()
    progresses = Progresses(lambda: pods, changed.put_nowait, port)
    task = asyncio.create_task(progresses.run())
    try:
        yield progresses, changed
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_builder_is_asked_and_what_it_says_stands_for_its_job() -> None:
    told = progress.Told(0)
    told.tell(TOLD)
    async with asking(told.port, pod()) as (progresses, changed):
        assert await asyncio.wait_for(changed.get(), DEADLINE_S) == Key("Model", "team", "digits")
        assert progresses.said("uid-digits") == "int8: quantize (40%, about 2 min left)"
        told.tell({**TOLD, "share": 0.9, "left_s": None})
        await asyncio.wait_for(changed.get(), DEADLINE_S)
        assert progresses.said("uid-digits") == "int8: quantize (90%)"
        assert progresses.said("uid-other") == ""


async def test_one_that_does_not_run_is_not_asked() -> None:
    told = progress.Told(0)
    told.tell(TOLD)
    waiting, foreign = pod("waiting", waiting={}), pod("foreign")
    foreign["metadata"]["ownerReferences"] = []
    async with asking(told.port, waiting, foreign, pod()) as (progresses, changed):
        assert await asyncio.wait_for(changed.get(), DEADLINE_S) == Key("Model", "team", "digits")
        assert (progresses.said("uid-waiting"), progresses.said("uid-foreign"), changed.empty()) == ("", "", True)


def saying(head: bytes, body: bytes, endless: bool = False) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(body)
            await writer.drain()
            while endless:
                writer.write(body)
                await writer.drain()
            writer.close()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


HOSTILE = {
    "silence": silent,
    "no end": saying(b"200 OK", b" " * 65536, endless=True),
    "no JSON": saying(b"200 OK\r\nContent-Length: 9", b"not JSON!"),
    "no share": saying(
        b"200 OK\r\nContent-Length: 60", b'{"variant": "", "stage": "", "share": 1e999, "left_s": null}'
    ),
    "elsewhere": saying(b"302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0", b""),
    "no HTTP": saying(b"garbage", b""),
}


async def test_whatever_else_answers_says_nothing_and_holds_up_nobody() -> None:
    shares = iter((0.1, 0.2, 0.3))

    async def honest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = json.dumps({**TOLD, "share": next(shares)}).encode()
        await saying(b"200 OK\r\nContent-Length: %d" % len(said), said)(reader, writer)

    async with contextlib.AsyncExitStack() as stack:
        pods, port = [], 0
        for number, (name, answer) in enumerate({"digits": honest, **HOSTILE}.items(), start=1):
            address = f"127.0.0.{number}"
            server = await stack.enter_async_context(await asyncio.start_server(answer, address, port))
            port = server.sockets[0].getsockname()[1]
            pods.append(pod(name, address))
        progresses, changed = await stack.enter_async_context(asking(port, *pods))
        # Once the second round has brought something new, all answers of the first are known.
        heard = [await asyncio.wait_for(changed.get(), DEADLINE_S) for _ in range(2)]
        assert heard == [Key("Model", "team", "digits")] * 2
        assert {name: progresses.said(f"uid-{name}") for name in HOSTILE} == dict.fromkeys(HOSTILE, "")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (TOLD, "int8: quantize (40%, about 2 min left)"),
        ({**TOLD, "variant": "", "stage": "measure", "left_s": 3.0}, "measure (40%, about 1 min left)"),
        ({**TOLD, "left_s": None, "more": 1}, "int8: quantize (40%)"),
    ],
)
def test_progress_is_told_in_tenths_and_minutes(told: dict[str, Any], said: str) -> None:
    assert str(Progress.model_validate(told)) == said
