from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from operators.runtime.backoff import Backoff
from operators.runtime.queue import Queue
from tests.rig import loops


class Full(random.Random):
    """Never waits less than it may."""

    def uniform(self, a: float, b: float) -> float:
        return b


def run(scenario: Callable[[Queue[str]], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await scenario(Queue(Backoff(first_s=1, cap_s=60, random=Full())))

    loops.virtual(whole())


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


async def work(queue: Queue[str]) -> str:
    key = await queue.get()
    queue.done(key)
    return key


def test_a_key_waits_once_however_often_it_is_added() -> None:
    async def scenario(queue: Queue[str]) -> None:
        for key in "abaab":
            queue.add(key)
        assert len(queue) == 2
        assert [await work(queue), await work(queue)] == ["a", "b"]
        assert len(queue) == 0

    run(scenario)


def test_a_key_added_while_it_is_worked_on_comes_back_when_it_is_done_and_not_before() -> None:
    async def scenario(queue: Queue[str]) -> None:
        queue.add("a")
        key = await queue.get()
        queue.add("a")
        queue.add("b")
        assert await queue.get() == "b"
        assert len(queue) == 0
        queue.done(key)
        assert await queue.get() == "a"

    run(scenario)


def test_a_key_comes_at_the_earliest_time_it_was_planned_for() -> None:
    async def scenario(queue: Queue[str]) -> None:
        for delay_s in (30, 10, 20):
            queue.add_after("a", delay_s)
        assert (await work(queue), now()) == ("a", 10)
        queue.add_after("b", 100)
        assert (await work(queue), now()) == ("b", 110)

    run(scenario)


def test_starting_to_work_on_a_key_supersedes_what_was_planned_for_it() -> None:
    async def scenario(queue: Queue[str]) -> None:
        queue.add_after("a", 10)
        queue.add("a")
        assert (await work(queue), now()) == ("a", 0)
        queue.add_after("b", 50)
        assert (await work(queue), now()) == ("b", 50)

    run(scenario)


def test_a_failing_key_comes_back_later_each_time_until_it_is_forgotten() -> None:
    async def scenario(queue: Queue[str]) -> None:
        assert [queue.retry("a") for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert queue.retry("b") == 1
        queue.forget("a")
        assert queue.retry("a") == 1

    run(scenario)


def test_nothing_planned_fires_after_it_is_closed() -> None:
    async def scenario(queue: Queue[str]) -> None:
        queue.add_after("a", 1)
        queue.close()
        await asyncio.sleep(2)
        assert len(queue) == 0

    run(scenario)


@given(steps=st.lists(st.tuples(st.sampled_from(["add", "later", "get", "done", "wait"]), st.sampled_from("abc"))))
def test_no_key_is_lost_and_none_is_worked_on_twice_at_once(steps: list[tuple[str, str]]) -> None:
    async def scenario(queue: Queue[str]) -> None:
        wanted: set[str] = set()
        in_work: list[str] = []
        for step, key in steps:
            match step:
                case "add":
                    queue.add(key)
                    wanted.add(key)
                case "later":
                    queue.add_after(key, 1)
                    wanted.add(key)
                case "get" if len(queue):
                    got = await queue.get()
                    assert got not in in_work
                    in_work.append(got)
                    wanted.discard(got)
                case "done" if in_work:
                    queue.done(in_work.pop())
                case "wait":
                    await asyncio.sleep(2)
        for key in in_work:
            queue.done(key)
        await asyncio.sleep(2)
        assert {await queue.get() for _ in range(len(queue))} == wanted

    run(scenario)
