"""Whatever requests come in whatever order, each is answered as if it were alone, once."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.base import Engine, Interrupt
from serving.models import loading
from serving.models.loading import Loaded
from serving.requests import Request, Response, Wanted
from serving.scheduling import Admission, Done, Job, ModelQueue, Result
from serving.settings import Settings
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array, Tensor
from tests.rig import onnx_models

ECHO = """{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]},
                      {"name": "text", "datatype": "BYTES", "shape": [-1]}]}"""


@dataclasses.dataclass(frozen=True)
class Sent:
    """One request of a story, and whether the event loop gets a turn before the next."""

    rows: int
    width: int
    outputs: tuple[int, ...]
    priority: int
    pause: bool


SENT = st.builds(
    Sent,
    rows=st.integers(0, 6),
    width=st.sampled_from([1, 2, 4]),
    outputs=st.sampled_from([(), (0,), (1,), (0, 1), (1, 0)]),
    priority=st.sampled_from([0, 0, 0, 1, 7, 200]),
    pause=st.booleans(),
)


class Counting:
    """The engine behind it, and how often it was called."""

    may_block = False
    may_loop = False
    problem = ""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.platform = engine.platform
        self.signature = engine.signature
        self.calls: list[int] = []

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        self.calls.append(len(next(iter(inputs.values()))))
        return self.engine.infer(inputs, outputs, interrupt)

    def close(self) -> None:
        """The engine goes on to the next story."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> list[Engine]:
    folder: Path = tmp_path_factory.mktemp("models")
    (folder / "echo.identity.json").write_text(ECHO)
    found = [folder / "echo.identity.json", onnx_models.linear(folder / "linear.onnx", scale=10)]
    loaded = [loading.load(path, Settings()) for path in found]
    assert [one.max_rows for one in loaded] == [32, 32]
    return [one.engine for one in loaded]


def request(engine: Engine, number: int, sent: Sent) -> Request:
    tensors = []
    for spec in engine.signature.inputs:
        shape = tuple(sent.width if size == -1 else size for size in (1, *spec.shape[1:]))
        shape = (sent.rows, *shape[1:])
        values = number * 100 + np.arange(np.prod(shape, dtype=int)).reshape(shape)
        if spec.datatype == "BYTES":
            texts = np.empty(shape, np.object_)
            texts[...] = [b"%d" % value for value in values]
            tensors.append(Tensor(spec.name, "BYTES", texts))
        else:
            tensors.append(Tensor(spec.name, "FP32", values.astype(np.float32)))
    names = [spec.name for spec in engine.signature.outputs]
    wanted = [Wanted(names[index]) for index in sent.outputs if index < len(names)]
    return Request(f"r{number}", tensors, wanted, priority=sent.priority)


async def told(
    engine: Counting, max_rows: int, inline: bool, story: Sequence[Sent]
) -> tuple[list[Result], ModelCounters]:
    """The answer to each request of the story, each of which came exactly once."""
    counters = ModelCounters()
    loaded = Loaded(engine, 10**6 if inline else 0, max_rows=max_rows, joins_inline=inline and max_rows > 1)
    queue = ModelQueue("m", "1", loaded, counters, Settings(), Admission(10**6, 10**9))
    answers: list[list[Result]] = [[] for _ in story]
    left, over = len(story), asyncio.Event()

    def taker(number: int) -> Done:
        def done(job: Job, result: Result) -> None:
            nonlocal left
            answers[number].append(result)
            left -= 1
            if left == 0:
                over.set()

        return done

    for number, sent in enumerate(story):
        queue.submit(request(engine, number, sent), time.perf_counter(), None, taker(number))
        if sent.pause:
            await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await over.wait()
    await queue.close()
    assert [len(given) for given in answers] == [1] * len(story)
    return [given[0] for given in answers], counters


@given(which=st.integers(0, 1), max_rows=st.sampled_from([1, 2, 5, 32]), inline=st.booleans(),
       story=st.lists(SENT, min_size=1, max_size=25))  # fmt: skip
def test_each_answer_is_what_the_engine_gives_to_that_request_alone(
    engines: list[Engine], which: int, max_rows: int, inline: bool, story: list[Sent]
) -> None:
    engine = Counting(engines[which])

    results, counters = asyncio.run(told(engine, max_rows, inline, story))

    for number, (sent, result) in enumerate(zip(story, results, strict=True)):
        assert isinstance(result, Response)
        asked = request(engine, number, sent)
        names = [wanted.name for wanted in asked.outputs] or [spec.name for spec in engine.signature.outputs]
        alone = engines[which].infer({tensor.name: tensor.array for tensor in asked.inputs}, names)
        assert (result.id, [tensor.name for tensor in result.outputs]) == (f"r{number}", names)
        for tensor, expected in zip(result.outputs, alone, strict=True):
            assert tensor.array.shape == expected.shape
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(tensor.array, expected, rtol=1e-5)
            else:
                assert tensor.array.tolist() == expected.tolist()
    rows = sum(sent.rows for sent in story)
    assert (counters.pending, counters.execs, counters.inferences) == (0, len(engine.calls), rows)
    assert sum(engine.calls) == rows
    assert all(size <= max(max_rows, 6) for size in engine.calls)
