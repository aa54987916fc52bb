from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from operators.runtime import health
from operators.runtime.backoff import Backoff
from operators.runtime.controller import Controller
from operators.runtime.queue import Queue
from tests.rig import loops

Reconcile = Callable[[str], Awaitable[float | None]]


@contextlib.asynccontextmanager
async def controlling(reconcile: Reconcile, workers: int = 1) -> AsyncIterator[tuple[Queue[str], Controller[str]]]:
    queue: Queue[str] = Queue(Backoff(first_s=1, cap_s=60, random=random.Random(1)))
    controller = Controller(queue, reconcile, workers, asyncio.get_running_loop().time)
    task = asyncio.create_task(controller.run())
    try:
        yield queue, controller
    finally:
        task.cancel()
        await asyncio.wait({task})


def test_looks_again_when_the_reconcile_says_so() -> None:
    async def scenario() -> None:
        times: list[float] = []

        async def reconcile(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time())
            return 10 if len(times) < 3 else None

        async with controlling(reconcile) as (queue, _):
            queue.add("a")
            await asyncio.sleep(100)
        assert times == [0, 10, 20]

    loops.virtual(scenario())


def test_a_poison_key_backs_off_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        tries: list[float] = []
        served: list[float] = []

        async def reconcile(key: str) -> float | None:
            now = asyncio.get_running_loop().time()
            if key == "poison":
                tries.append(now)
                raise ValueError("spec.replicas is a colour")
            served.append(now)
            return 1

        async with controlling(reconcile) as (queue, _):
            queue.add("poison")
            queue.add("good")
            await asyncio.sleep(600)
        assert len(served) == 601
        gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
        assert all(min(60, 2.0**n) / 2 <= gap <= min(60, 2.0**n) for n, gap in enumerate(gaps))
        assert len(tries) >= 12

    loops.virtual(scenario())


def test_as_many_keys_as_workers_are_worked_on_at_once() -> None:
    async def scenario() -> None:
        done: list[tuple[str, float]] = []

        async def reconcile(key: str) -> float | None:
            await asyncio.sleep(5)
            done.append((key, asyncio.get_running_loop().time()))
            return None

        async with controlling(reconcile, workers=2) as (queue, _):
            for key in "abcd":
                queue.add(key)
            await asyncio.sleep(20)
        assert done == [("a", 5), ("b", 5), ("c", 10), ("d", 10)]

    loops.virtual(scenario())


def test_health_names_the_key_a_worker_is_stuck_at() -> None:
    async def scenario() -> None:
        async def reconcile(key: str) -> float | None:
            await asyncio.sleep(3600)
            return None

        async with controlling(reconcile) as (queue, controller):
            check = health.works(controller, stuck_s=600)
            assert check() is None
            queue.add("Model default/digits")
            await asyncio.sleep(600)
            assert check() is None
            await asyncio.sleep(1)
            assert check() == "reconcile of Model default/digits: not done after 601 s"

    loops.virtual(scenario())


def test_each_reconcile_leaves_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async def reconcile(key: str) -> float | None:
            if key == "bad":
                raise ValueError("spec.replicas is a colour")
            return 5

        async with controlling(reconcile) as (queue, _):
            queue.add("good")
            queue.add("bad")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with caplog.at_level(logging.INFO):
        loops.virtual(scenario())
    retry_s = random.Random(1).uniform(0.5, 1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "reconcile key='good' outcome=done duration_s=0.000 look_again_s=5",
        f"reconcile key='bad' outcome=failed duration_s=0.000 retry_s={retry_s:.1f} error='spec.replicas is a colour'",
    ]
