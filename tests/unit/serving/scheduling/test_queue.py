import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.engines.base import Interrupt
from serving.errors import Cancelled, DeadlineExceeded, InferenceFailed, InvalidInput, NotReady, Overloaded
from serving.loading import Loaded
from serving.metrics import ModelCounters
from serving.requests import Request
from serving.scheduling import Admission, Job, ModelQueue, Result
from serving.settings import Limits, Settings
from serving.tensors import Array, Signature, Tensor, TensorSpec

SPECS = (TensorSpec("x", "FP32", (-1,)),)


class Gated:
    """An engine of this test: it answers its input when the gate is open, and stops when interrupted."""

    platform = "gated"
    may_loop = True
    problem = ""
    signature = Signature(SPECS, SPECS)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.seen: list[float] = []
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        self.threads.add(threading.get_ident())
        self.seen.append(float(inputs["x"][0]))
        if interrupt is not None:
            interrupt.arm(self.gate.set)
        self.begun.release()
        self.gate.wait()
        if interrupt is not None and interrupt.fired:
            raise InferenceFailed("interrupted")
        if inputs["x"][0] < 0:
            raise ValueError("below zero")
        return [inputs["x"]]

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def engine() -> Iterator[Gated]:
    gated = Gated()
    yield gated
    gated.gate.set()


def request(value: float, size: int = 1) -> Request:
    return Request(f"r{value:g}", [Tensor("x", "FP32", np.full(size, value, np.float32))])


def queue(
    engine: Gated,
    inline: int = 0,
    max_pending: int = 8,
    max_pending_bytes: int = 10**9,
    timeout: str = "60s",
    admission: Admission | None = None,
) -> ModelQueue:
    limits = Limits(max_pending=max_pending, max_pending_bytes=max_pending_bytes, timeout=timeout)
    admission = admission or Admission(100, 10**9)
    return ModelQueue("m", "3", Loaded(engine, inline), ModelCounters(), Settings(limits=limits), admission)


def submit(
    to: ModelQueue, value: float, timeout_s: float | None = None, size: int = 1
) -> tuple[Job | None, asyncio.Future[Result]]:
    answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    job = to.submit(request(value, size), time.perf_counter(), timeout_s, lambda _, result: answered.set_result(result))
    return job, answered


async def begun(engine: Gated) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, lambda: engine.begun.acquire(timeout=30))


async def test_requests_are_answered_in_order_by_one_thread_that_is_not_the_event_loops(engine: Gated) -> None:
    to = queue(engine)
    answers = [submit(to, value)[1] for value in (1, 2, 3)]
    engine.gate.set()

    results = await asyncio.gather(*answers)

    assert engine.seen == [1, 2, 3]
    assert engine.threads != {threading.get_ident()}
    assert len(engine.threads) == 1
    assert [(r.model, r.version, r.id, r.outputs[0].array.tolist()) for r in results if isinstance(r, tuple)] == [
        ("m", "3", "r1", [1.0]),
        ("m", "3", "r2", [2.0]),
        ("m", "3", "r3", [3.0]),
    ]


async def test_a_small_request_runs_at_once_on_the_event_loop_and_a_larger_one_does_not(engine: Gated) -> None:
    to = queue(engine, inline=2)
    engine.gate.set()

    job, answered = submit(to, 1, size=2)
    assert (job, answered.done(), engine.threads) == (None, True, {threading.get_ident()})

    _, answered = submit(to, 1, size=3)
    assert not answered.done()
    await answered
    assert len(engine.threads) == 2


async def test_a_full_queue_refuses_with_the_number_that_waits(engine: Gated) -> None:
    to = queue(engine, max_pending=2)
    answers = [submit(to, value)[1] for value in (1, 2)]

    with pytest.raises(Overloaded) as refused:
        submit(to, 3)

    assert str(refused.value) == (
        "model 'm' has 2 requests waiting, its limit; send again later, or raise limits.maxPending"
    )
    engine.gate.set()
    await asyncio.gather(*answers)
    assert engine.seen == [1, 2]


async def test_a_request_whose_client_has_gone_never_reaches_the_engine(engine: Gated) -> None:
    to = queue(engine)
    _, first = submit(to, 1)
    job, second = submit(to, 2)
    assert job is not None
    job.cancel()
    engine.gate.set()

    await first
    assert isinstance(await second, Cancelled)
    assert engine.seen == [1]


async def test_a_request_whose_client_goes_while_the_engine_has_it_is_interrupted(engine: Gated) -> None:
    to = queue(engine)
    job, answered = submit(to, 1)
    await begun(engine)
    assert job is not None
    job.cancel()

    assert isinstance(await answered, Cancelled)


async def test_a_request_that_waited_beyond_its_own_time_limit_never_reaches_the_engine(engine: Gated) -> None:
    to = queue(engine)
    _, first = submit(to, 1)
    _, second = submit(to, 2, timeout_s=0)
    engine.gate.set()

    await first
    result = await second
    assert isinstance(result, DeadlineExceeded)
    assert str(result) == (
        "model 'm' waited for longer than the time limit of the request (at most 60 s, limits.timeout)"
    )
    assert engine.seen == [1]


async def test_an_inference_beyond_its_time_limit_is_interrupted_and_the_next_one_goes_on(engine: Gated) -> None:
    to = queue(engine)
    _, first = submit(to, 1)
    await begun(engine)
    to.tick(time.perf_counter() + 59)
    assert not first.done()
    to.tick(time.perf_counter() + 61)

    result = await first
    assert isinstance(result, DeadlineExceeded)
    assert str(result) == (
        "model 'm' did not answer within the time limit of the request (at most 60 s, limits.timeout)"
    )
    assert not isinstance(await submit(to, 2)[1], DeadlineExceeded)


async def test_an_engine_that_breaks_fails_one_request_without_its_words(engine: Gated) -> None:
    to = queue(engine)
    engine.gate.set()

    result = await submit(to, -1)[1]

    assert (type(result), str(result)) == (InferenceFailed, "model 'm' failed: ValueError")
    assert not isinstance(await submit(to, 1)[1], InferenceFailed)


async def test_inputs_that_do_not_fit_are_refused_before_they_wait(engine: Gated) -> None:
    to = queue(engine)

    with pytest.raises(InvalidInput):
        to.submit(Request("", [Tensor("q", "FP32", np.zeros(1, np.float32))]), 0, None, lambda *_: None)

    assert to.counters.pending == 0


async def test_a_closed_queue_answers_what_it_has_frees_the_engine_and_takes_nothing_new(engine: Gated) -> None:
    to = queue(engine)
    answers = [submit(to, value)[1] for value in (1, 2)]
    closing = asyncio.ensure_future(to.close())
    await begun(engine)

    with pytest.raises(NotReady) as refused:
        submit(to, 3)
    assert str(refused.value) == "model 'm' version '3' is being unloaded"
    engine.gate.set()
    await asyncio.gather(closing, *answers)

    assert engine.seen == [1, 2]
    assert engine.closed.wait(30)


async def test_what_was_done_is_counted(engine: Gated) -> None:
    to = queue(engine)
    first, second = submit(to, 1, size=3)[1], submit(to, 2)[1]
    assert to.counters.pending == 2
    engine.gate.set()
    await asyncio.gather(first, second)

    counters = to.counters
    assert (counters.pending, counters.execs, counters.inferences) == (0, 2, 4)
    assert counters.queue_s > 0
    assert counters.compute_infer_s > 0


async def test_a_queue_says_without_a_request_whether_it_would_take_one(engine: Gated) -> None:
    to = queue(engine, max_pending=2, max_pending_bytes=10)
    assert to.refusal(1000) is None

    answers = [submit(to, 1, size=2)[1]]
    assert str(to.refusal(4)) == (
        "model 'm' has 8 bytes waiting, this request has 4; the limit is 10: send again later, "
        "or raise limits.maxPendingBytes"
    )
    with pytest.raises(Overloaded):
        submit(to, 1)
    answers.append(submit(to, 1, size=0)[1])
    assert str(to.refusal()) == (
        "model 'm' has 2 requests waiting, its limit; send again later, or raise limits.maxPending"
    )

    engine.gate.set()
    await asyncio.gather(*answers)
    assert to.refusal(1000) is None


async def test_the_requests_of_all_models_together_are_bounded(engine: Gated) -> None:
    admission = Admission(1, 10)
    one, other = queue(engine, admission=admission), queue(engine, admission=admission)
    answer = submit(one, 1)[1]

    with pytest.raises(Overloaded) as refused:
        submit(other, 1)

    assert str(refused.value) == "the server has 1 requests in work, its limit (--max-requests); send again later"
    engine.gate.set()
    await answer
    await submit(other, 1)[1]
    assert admission.requests == 0
