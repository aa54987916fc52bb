import asyncio
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np
import pytest

from serving.engines.base import Interrupt
from serving.engines.identity import IdentityEngine, StreamingIdentityEngine
from serving.errors import Cancelled, DeadlineExceeded, InferenceFailed, InvalidInput, Overloaded, ServingError
from serving.models.loading import Loaded
from serving.requests import Request, Response
from serving.scheduling import Admission, ModelQueue, Stream
from serving.scheduling.stream import AHEAD
from serving.settings import Limits, Settings
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array, Tensor, TensorSpec

SPECS = (TensorSpec("x", "FP32", (-1,)),)


class Endless(StreamingIdentityEngine):
    """An engine of this test: it counts its responses, of which there is no end, and fails at the ``fails``-th."""

    def __init__(self, fails: int = -1) -> None:
        super().__init__(SPECS)
        self.given = 0
        self.fails = fails
        self.ended = threading.Event()

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt
    ) -> Generator[list[Array], None, None]:
        try:
            while True:
                if self.given == self.fails:
                    raise ValueError("no more")
                self.given += 1
                yield [np.full(1, self.given, np.float32)]
        finally:
            self.ended.set()


def queue(engine: IdentityEngine, max_pending: int = 8) -> ModelQueue:
    settings = Settings(limits=Limits(max_pending=max_pending, timeout="60s"))
    return ModelQueue("m", "3", Loaded(engine, 0), ModelCounters(), settings, Admission(100, 10**9))


def begin(to: ModelQueue, *rows: float, timeout_s: float | None = None) -> Stream:
    request = Request("r1", [Tensor("x", "FP32", np.array(rows, np.float32))])
    return to.stream(request, time.perf_counter(), timeout_s)


async def taken(stream: Stream, most: int = 10**9) -> list[Response]:
    found = []
    async with asyncio.timeout(30):
        async for response in stream:
            found.append(response)
            if len(found) == most:
                break
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_each_response_comes_in_its_order_with_the_id_of_its_request() -> None:
    to = queue(StreamingIdentityEngine(SPECS))

    found = await taken(begin(to, 1, 2, 3))

    assert [(r.model, r.version, r.id, r.outputs[0].array.tolist()) for r in found] == [
        ("m", "3", "r1", [1.0]), ("m", "3", "r1", [2.0]), ("m", "3", "r1", [3.0]),
    ]  # fmt: skip
    assert (to.counters.pending, to.counters.execs, to.counters.inferences) == (0, 1, 3)


async def test_there_may_be_no_response_at_all() -> None:
    assert await taken(begin(queue(StreamingIdentityEngine(SPECS)))) == []


async def test_two_streams_of_a_model_go_on_beside_each_other() -> None:
    to = queue(StreamingIdentityEngine(SPECS))
    slow, other = begin(to, *range(100)), begin(to, 1)

    assert len(await taken(other)) == 1
    assert len(await taken(slow)) == 100


async def test_the_engine_is_never_far_ahead_of_a_client_that_does_not_read() -> None:
    engine = Endless()
    stream = begin(queue(engine))
    await until(lambda: engine.given == AHEAD)

    found = await taken(stream, most=3)

    assert [response.outputs[0].array.tolist() for response in found] == [[1.0], [2.0], [3.0]]
    await until(lambda: engine.given == AHEAD + 3)
    stream.cancel()


async def test_a_client_that_has_gone_ends_the_stream_while_the_engine_waits_for_it() -> None:
    engine = Endless()
    to = queue(engine)
    stream = begin(to)
    await until(lambda: engine.given == AHEAD)

    stream.cancel()

    with pytest.raises(Cancelled):
        await taken(stream)
    assert engine.ended.is_set()
    assert to.counters.pending == 0


async def test_the_time_limit_is_that_of_the_last_response() -> None:
    to = queue(Endless())
    stream = begin(to, timeout_s=0.001)
    await taken(stream, most=10)

    to.tick(time.perf_counter() + 1)

    with pytest.raises(DeadlineExceeded, match=r"^model 'm' did not answer within the time limit of the request"):
        await taken(stream)


async def test_what_the_engine_gave_before_it_failed_is_given() -> None:
    stream = begin(queue(Endless(fails=2)))

    found = await taken(stream, most=2)

    assert [response.outputs[0].array.tolist() for response in found] == [[1.0], [2.0]]
    with pytest.raises(InferenceFailed, match=r"^model 'm' failed: ValueError$"):
        await taken(stream)


async def test_streams_count_among_the_requests_that_a_model_may_have() -> None:
    to = queue(Endless(), max_pending=1)
    first = begin(to)

    with pytest.raises(Overloaded):
        begin(to)

    first.cancel()
    with pytest.raises(Cancelled):
        await taken(first)
    begin(to).cancel()


async def test_a_model_is_unloaded_after_its_streams() -> None:
    to = queue(Endless())
    stream = begin(to)
    closing = asyncio.ensure_future(to.close())
    await taken(stream, most=5)
    assert not closing.done()

    stream.cancel()

    await asyncio.wait_for(closing, 30)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the model gave no response to this request, expected exactly one; "),
        ([1, 2], "the model gives more than one response to this request; "),
    ],
)
async def test_a_call_with_room_for_one_response_is_refused_when_there_is_another_number(
    rows: list[float], message: str
) -> None:
    answered: asyncio.Future[Response | ServingError] = asyncio.get_running_loop().create_future()
    request = Request("r1", [Tensor("x", "FP32", np.array(rows, np.float32))])

    to = queue(StreamingIdentityEngine(SPECS))
    to.submit(request, time.perf_counter(), None, lambda _, result: answered.set_result(result))
    result = await answered

    assert isinstance(result, InvalidInput)
    assert str(result) == message + "ask with generate_stream or ModelStreamInfer, which take any number"


def test_only_an_engine_that_streams_is_taken_for_one() -> None:
    async def streams(engine: IdentityEngine) -> bool:
        return queue(engine).streams

    assert asyncio.run(streams(IdentityEngine(SPECS))) is False
    assert asyncio.run(streams(StreamingIdentityEngine(SPECS))) is True
