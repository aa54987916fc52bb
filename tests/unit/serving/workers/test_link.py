"""Calls between two processes, here between two ends of a socket in one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.errors import ArtifactRefused, ServingError
from serving.workers.link import Gone, Link


@contextlib.asynccontextmanager
async def linked(one: Link, other: Link) -> AsyncIterator[None]:
    runs = [asyncio.ensure_future(link.run(end)) for link, end in zip((one, other), socket.socketpair(), strict=True)]
    yield
    for run in runs:
        run.cancel()
    await asyncio.gather(*runs, return_exceptions=True)


async def twice(number: int) -> int:
    return 2 * number


async def refuse() -> None:
    raise ArtifactRefused("digits.onnx is empty")


async def stumble() -> None:
    raise KeyError("a bug")


async def never() -> Any:
    await asyncio.Event().wait()


async def test_both_sides_call_and_answer_at_the_same_time() -> None:
    one, other = Link({"twice": twice}), Link({"twice": twice})
    async with linked(one, other):
        calls = [link.call("twice", number=number) for number in range(50) for link in (one, other)]

        assert await asyncio.gather(*calls) == [2 * number for number in range(50) for _ in (one, other)]


async def test_an_error_of_the_other_side_keeps_its_kind_and_its_text() -> None:
    one, other = Link({}), Link({"refuse": refuse, "stumble": stumble})
    async with linked(one, other):
        with pytest.raises(ArtifactRefused, match=r"^digits\.onnx is empty$"):
            await one.call("refuse")
        with pytest.raises(ServingError, match="stumble failed: KeyError"):
            await one.call("stumble")


async def test_whoever_waits_for_a_side_that_ends_is_told_so() -> None:
    one, other = Link({}), Link({"never": never})
    ours, theirs = socket.socketpair()
    runs = [asyncio.ensure_future(one.run(ours)), asyncio.ensure_future(other.run(theirs))]
    asking = asyncio.ensure_future(one.call("never"))
    await asyncio.sleep(0)

    runs[1].cancel()

    with pytest.raises(Gone):
        await asking
    with pytest.raises(Gone):
        await one.call("never")
    await asyncio.gather(*runs, return_exceptions=True)
