import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.engines.base import Interrupt
from serving.errors import (
    Cancelled,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    NotReady,
    Overloaded,
    ServingError,
)
from serving.models.loading import Loaded
from serving.requests import Request
from serving.scheduling import Admission, Job, ModelQueue, Result
from serving.settings import Batching, Limits, Settings
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array, Signature, Tensor, TensorSpec
from tests.rig import waiting

SPECS = (TensorSpec("x", "FP32", (-1,)),)


class Gated:
    """An engine of this test: it answers its input when the gate is open, and stops when interrupted."""

    platform = "gated"
    may_loop = True
    may_block = True
    problem = ""
    signature = Signature(SPECS, SPECS)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.seen: list[float] = []
        self.calls: list[list[float]] = []
        self.deaf = False
        self.threads: set[int] = set()
        self.closed = threading.Event()

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        self.threads.add(threading.get_ident())
        self.seen.append(float(inputs["x"][0]) if inputs["x"].size else 0.0)
        self.calls.append(inputs["x"].tolist())
        if interrupt is not None and not self.deaf:
            interrupt.arm(self.gate.set)
        self.begun.release()
        self.gate.wait()
        if interrupt is not None and interrupt.fired:
            raise InferenceFailed("interrupted")
        if (inputs["x"] < 0).any():
            raise ValueError("below zero")
        if (inputs["x"] == 99).any():
            return [inputs["x"][:1]]
        return [inputs["x"]]

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def engine() -> Iterator[Gated]:
    gated = Gated()
    yield gated
    gated.gate.set()


def request(value: float, size: int = 1, priority: int = 0) -> Request:
    return Request(f"r{value:g}", [Tensor("x", "FP32", np.full(size, value, np.float32))], priority=priority)


def queue(
    engine: Gated,
    inline: int = 0,
    max_pending: int = 8,
    max_pending_bytes: int = 10**9,
    timeout: str = "60s",
    execution: str | None = None,
    admission: Admission | None = None,
    max_rows: int = 1,
    call_s: float = 0.0,
    max_delay: str = "0ms",
) -> ModelQueue:
    limits = Limits(max_pending=max_pending, max_pending_bytes=max_pending_bytes, timeout=timeout, execution=execution)
    admission = admission or Admission(100, 10**9)
    loaded = Loaded(engine, inline, call_s, max_rows=max_rows, joins_inline=inline > 0 and max_rows > 1)
    said = Settings(limits=limits, batching=Batching(max_delay=max_delay))
    return ModelQueue("m", "3", loaded, ModelCounters(), said, admission)


def submit(
    to: ModelQueue, value: float, timeout_s: float | None = None, size: int = 1, priority: int = 0
) -> tuple[Job | None, asyncio.Future[Result]]:
    answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    job = to.submit(
        request(value, size, priority), time.perf_counter(), timeout_s, lambda _, result: answered.set_result(result)
    )
    return job, answered


async def begun(engine: Gated) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert await asyncio.get_running_loop().run_in_executor(pool, lambda: engine.begun.acquire(timeout=30))


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await waiting.until("what this test waits for", holds, 30)


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
        "model 'm' waited for longer than the time limit of the request (0 s, the call's grpc-timeout)"
    )
    assert engine.seen == [1]


async def test_who_asked_too_long_for_its_own_limit_is_told_of_that_one(engine: Gated) -> None:
    to = queue(engine)
    _, first = submit(to, 1)
    answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    hurried = request(2)._replace(timeout_s=1e-6)
    to.submit(hurried, time.perf_counter(), 5.0, lambda _, result: answered.set_result(result))
    engine.gate.set()

    await first
    assert str(await answered) == (
        "model 'm' waited for longer than the time limit of the request (1 microseconds, its parameter timeout)"
    )


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


def values(results: Sequence[Result]) -> list[object]:
    """Each answer's values, or the kind of error."""
    return [
        type(result) if isinstance(result, ServingError) else result.outputs[0].array.tolist() for result in results
    ]


async def test_those_who_wait_when_the_engine_gets_free_share_its_next_call(engine: Gated) -> None:
    to = queue(engine, max_rows=4)
    answers = [submit(to, 1)[1]]
    await begun(engine)
    jobs, more = zip(*[submit(to, value, size=size) for value, size in ((2, 1), (3, 2), (4, 1), (5, 1))], strict=True)
    engine.gate.set()

    assert values(await asyncio.gather(*answers, *more)) == [[1], [2], [3, 3], [4], [5]]
    assert engine.calls == [[1], [2, 3, 3, 4], [5]]
    calls = [job.call for job in jobs if job is not None and job.call is not None]
    assert [(call.requests, call.rows) for call in calls] == [(3, 4), (3, 4), (3, 4), (1, 1)]
    assert calls[0] is calls[2]
    assert calls[0].begun <= calls[0].ended <= calls[3].begun
    assert (to.counters.execs, to.counters.inferences, sorted(to.counters.batches)) == (3, 6, [1, 4])


async def test_those_who_came_in_the_same_turn_of_the_loop_share_a_call_on_it(engine: Gated) -> None:
    to = queue(engine, inline=2, max_rows=3)
    engine.gate.set()
    answers = [submit(to, value)[1] for value in (1, 2, 3, 4)]

    assert engine.calls == []
    assert values(await asyncio.gather(*answers)) == [[1], [2], [3], [4]]
    assert (engine.calls, engine.threads) == ([[1, 2, 3], [4]], {threading.get_ident()})
    assert (to.counters.pending, to.counters.execs, to.counters.inferences) == (0, 2, 4)


async def test_one_that_the_engine_cannot_bear_does_not_fail_those_beside_it(
    engine: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    to = queue(engine, max_rows=4, max_pending=16)
    answers = [submit(to, 1)[1]]
    await begun(engine)
    answers += [submit(to, value)[1] for value in (2, -3, 4, 5, 6, -7)]
    engine.gate.set()

    assert values(await asyncio.gather(*answers)) == [[1], [2], InferenceFailed, [4], [5], [6], InferenceFailed]
    assert engine.calls == [[1], [2, -3, 4, 5], [2], [-3], [4], [5], [6, -7], [6], [-7]]
    assert (to.counters.execs, to.counters.pending) == (9, 0)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "model m version 3 failed on 4 requests together (model 'm' failed: ValueError); each is computed by itself, "
        "now and whenever this happens again"
    ]


async def test_outputs_with_another_number_of_rows_are_not_cut_up_but_computed_one_by_one(engine: Gated) -> None:
    to = queue(engine, max_rows=4)
    answers = [submit(to, 1)[1]]
    await begun(engine)
    answers += [submit(to, value)[1] for value in (2, 99)]
    engine.gate.set()

    assert values(await asyncio.gather(*answers)) == [[1], [2], [99]]
    assert engine.calls == [[1], [2, 99], [2], [99]]


async def test_a_member_of_a_call_that_goes_or_is_late_leaves_and_the_others_get_their_answers(engine: Gated) -> None:
    to = queue(engine, max_rows=3, max_delay="1h")
    (going, gone), (_, late), (_, stays) = submit(to, 2), submit(to, 3, timeout_s=50), submit(to, 4)
    await begun(engine)
    assert going is not None
    going.cancel()
    to.tick(time.perf_counter() + 55)

    assert values([gone.result(), late.result()]) == [Cancelled, DeadlineExceeded]
    assert to.counters.pending == 1
    engine.gate.set()
    assert values([await stays]) == [[4]]
    assert engine.calls == [[2, 3, 4]]


async def test_the_highest_priority_goes_first(engine: Gated) -> None:
    to = queue(engine)
    answers = [submit(to, 0)[1]]
    await begun(engine)
    answers += [submit(to, value, priority=priority)[1] for value, priority in ((1, 0), (2, 7), (3, 200), (4, 1))]
    engine.gate.set()

    await asyncio.gather(*answers)

    assert engine.seen == [0, 4, 2, 1, 3]


async def test_a_request_that_waits_is_answered_when_its_time_is_over_though_the_engine_is_busy(engine: Gated) -> None:
    to = queue(engine)
    _, first = submit(to, 1)
    await begun(engine)
    _, second = submit(to, 2, timeout_s=5)
    to.tick(time.perf_counter() + 6)

    assert values([second.result()]) == [DeadlineExceeded]
    engine.gate.set()
    await first
    assert (engine.seen, to.counters.pending) == ([1], 0)


async def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once(engine: Gated) -> None:
    to = queue(engine, call_s=2.0)
    answers = [submit(to, 2)[1]]
    await begun(engine)
    answers.append(submit(to, 3)[1])

    with pytest.raises(Overloaded) as refused:
        submit(to, 4, timeout_s=3)

    assert (str(refused.value), refused.value.retry_after_s) == (
        "model 'm' cannot answer within the time limit of the request (3 s, the call's grpc-timeout): "
        "about 4 s of work wait before it; send again later",
        4.0,
    )
    answers.append(submit(to, 5, timeout_s=5)[1])
    engine.gate.set()
    await asyncio.gather(*answers)


async def test_a_call_longer_than_the_engine_may_take_is_stopped(engine: Gated) -> None:
    to = queue(engine, execution="5s")
    _, first = submit(to, 1)
    await begun(engine)
    to.tick(time.perf_counter() + 4)
    assert not first.done()
    to.tick(time.perf_counter() + 6)

    result = await first

    assert (type(result), str(result)) == (
        DeadlineExceeded,
        "model 'm' was stopped after 5 s, which is as long as its engine may take (limits.execution)",
    )


async def test_an_engine_that_does_not_stop_is_not_ready_until_it_does(engine: Gated) -> None:
    to = queue(engine, execution="5s")
    engine.deaf = True
    _, first = submit(to, 1)
    await begun(engine)
    _, second = submit(to, 2)
    now = time.perf_counter() + 6
    to.tick(now)
    assert (to.problem, first.done()) == ("", False)

    to.tick(now + 3)

    assert to.problem == "its engine was told to stop and does not"
    assert values([first.result(), second.result()]) == [DeadlineExceeded, NotReady]
    with pytest.raises(NotReady) as refused:
        submit(to, 3)
    assert str(refused.value) == "model 'm' version '3' is not ready: its engine was told to stop and does not"
    assert to.counters.pending == 0

    engine.deaf = False
    engine.gate.set()
    await until(lambda: to.problem == "")
    assert values([await submit(to, 4)[1]]) == [[4]]


async def test_a_model_under_pressure_lets_only_the_next_call_be_waited_for(engine: Gated) -> None:
    to = queue(engine, max_rows=2, max_pending=6)
    answers = [submit(to, 1)[1]]
    await begun(engine)
    answers += [submit(to, value)[1] for value in (2, 3, 4, 5, 6)]

    def refused_for_long() -> bool:
        assert isinstance(to.refusal(), Overloaded)
        to.tick(time.perf_counter())
        return answers[-1].done()

    await until(refused_for_long)

    assert values([answer.result() for answer in answers[3:]]) == [Overloaded, Overloaded, Overloaded]
    with pytest.raises(Overloaded) as refused:
        submit(to, 7)
    assert str(refused.value) == (
        "model 'm' gets more requests than it can answer; send again later, or give it more replicas"
    )
    engine.gate.set()
    assert values(await asyncio.gather(*answers[:3])) == [[1], [2], [3]]


async def test_the_tensors_of_a_request_do_not_outlive_its_answer(engine: Gated) -> None:
    to = queue(engine)
    engine.gate.set()
    job, answered = submit(to, 1)
    assert job is not None
    tensor = weakref.ref(job.inputs["x"])
    await answered
    del job, answered
    engine.calls.clear()

    await until(lambda: tensor() is None)


async def test_a_request_without_elements_does_not_run_on_the_event_loop_of_a_model_that_must_not(
    engine: Gated,
) -> None:
    to = queue(engine)
    engine.gate.set()

    await submit(to, 1, size=0)[1]

    assert engine.threads != {threading.get_ident()}


async def test_a_call_that_nobody_waits_for_is_stopped_and_not_made_again(
    engine: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    to = queue(engine, max_rows=2, max_delay="1h")
    sent = [submit(to, value) for value in (1, 2)]
    await begun(engine)
    for job, _ in sent:
        assert job is not None
        job.cancel()
    await until(lambda: to.counters.execs == 1)

    assert values([answer.result() for _, answer in sent]) == [Cancelled, Cancelled]
    assert engine.calls == [[1, 2]]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
