import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from serving.engines.base import Interrupt
from serving.errors import EngineLost, InferenceFailed, ServingError
from serving.requests import Request
from serving.scheduling import worker as scheduling_worker
from serving.scheduling.job import Batch, Job
from serving.scheduling.line import Line
from serving.scheduling.worker import Outcome, Worker
from serving.tensors import Array, Signature, Tensor, TensorSpec

SPECS = (TensorSpec("x", "FP32", (-1,)),)


class Lossy:
    """An engine of this test: whatever holds a negative number ends its process, which is back at the next look."""

    platform = "lossy"
    may_loop = False
    may_block = True
    signature = Signature(SPECS, SPECS)

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.closed = threading.Event()
        self._problem = ""

    @property
    def problem(self) -> str:
        problem, self._problem = self._problem, ""
        return problem

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        self.calls.append(inputs["x"].tolist())
        if self._problem or (inputs["x"] < 0).any():
            self._problem = "its process ended"
            raise EngineLost("the model's process ended")
        return [inputs["x"]]

    def close(self) -> None:
        self.closed.set()


class Told:
    """What was told, and what is to be done after each answer."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.broken = 0
        self.then: Callable[[], None] = lambda: None

    def computed(self, batch: Batch, names: Sequence[str], outcome: Outcome) -> None:
        for job in batch.jobs:
            job.answered = True
            failed = isinstance(outcome, ServingError)
            self.answers.append(type(outcome).__name__ if failed else job.request.id)
        self.then()

    def fell_apart(self, batch: Batch, error: ServingError | None) -> None:
        self.broken += 1

    def too_late(self, jobs: Sequence[Job]) -> None:
        self.answers += [f"{job.request.id} late" for job in jobs]

    async def until(self, answers: int) -> None:
        async with asyncio.timeout(30):
            while len(self.answers) < answers:
                await asyncio.sleep(0)


def job(value: float, deadline: float = math.inf) -> Job:
    array = np.array([value], np.float32)
    request = Request(f"{value:g}", [Tensor("x", "FP32", array)])
    made = Job(request, {"x": array}, SPECS, 0.0, deadline, lambda *_: None, lambda _: None)
    made.key = ((),)
    return made


def begun(engine: Lossy, told: Told, waiting: Sequence[Job], waits: bool = False) -> tuple[Worker, Line]:
    line = Line(4, 0.0)
    for one in waiting:
        line.put(one)
    return Worker("m", engine, line, told, asyncio.get_running_loop(), waits), line


async def test_those_whose_call_lost_its_engine_are_tried_by_themselves_when_it_is_back() -> None:
    engine, told = Lossy(), Told()
    worker, _ = begun(engine, told, [job(1), job(-2), job(3), job(4)])

    await told.until(4)

    assert (told.answers, told.broken) == (["1", "EngineLost", "3", "4"], 1)
    assert engine.calls == [[1, -2, 3, 4], [1], [-2], [3], [4]]
    worker.end()
    assert engine.closed.wait(30)


async def test_those_whose_time_is_over_are_told_and_not_computed() -> None:
    engine, told = Lossy(), Told()
    worker, _ = begun(engine, told, [job(1, deadline=0.0), job(2)])

    await told.until(2)
    worker.end()

    assert (told.answers, engine.calls) == (["1 late", "2"], [[2]])


async def test_on_a_single_cpu_those_who_come_upon_an_answer_share_the_next_call() -> None:
    engine, told = Lossy(), Told()
    worker, line = begun(engine, told, [job(1)], waits=True)

    def come() -> None:
        told.then = lambda: None
        line.put(job(2))
        asyncio.get_running_loop().call_soon(line.put, job(3))

    told.then = come
    await told.until(3)
    worker.end()

    assert engine.calls == [[1], [2, 3]]


class Failing(Lossy):
    """An engine of this test: it fails at everything, in its own words."""

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        raise InferenceFailed("the model failed: no such row")


async def test_an_engine_that_fails_is_a_line_of_the_log_that_names_the_model_and_many_failures_are_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling_worker, "_SILENT_S", math.inf)
    told = Told()
    worker, _ = begun(Failing(), told, [job(1), job(2), job(3)])

    await told.until(3)
    worker.end()

    assert told.answers == ["InferenceFailed"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "the engine of model m failed: the model failed: no such row"
    ]


async def test_an_engine_that_was_stopped_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    worker, _ = begun(Lossy(), Told(), [])

    error = InferenceFailed("the model failed: told to end")
    assert worker.said(error, stopped=True) is error
    worker.end()

    assert caplog.records == []
