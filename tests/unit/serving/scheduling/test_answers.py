import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.errors import InvalidInput, ServingError
from serving.models.repository import Repository
from serving.requests import Request, Response, Wanted
from serving.scheduling import Admission, ModelQueue, answers
from serving.scheduling.answers import Answers
from serving.telemetry.metrics import Metrics
from serving.tensors import Array, Tensor, TensorSpec
from tests.rig import onnx_models
from tests.rig.waiting import until

KEPT = 10_000


class Served:
    """The linear model behind a cache."""

    def __init__(self, folder: Path, said: dict[str, Any], limit_bytes: int = KEPT) -> None:
        self.path = onnx_models.linear(folder / "m.onnx")
        self.answers = Answers(limit_bytes)
        self.metrics = Metrics()
        self.repository = Repository([self.path], None, self.metrics, said, Admission(100, 10**9), answers=self.answers)

    async def ask(self, *rows: list[float], id: str = "", outputs: tuple[str, ...] = ()) -> Response:
        queue: ModelQueue = self.repository.find("m", "")
        results: list[Response | ServingError] = []
        x = Tensor("x", "FP32", np.array(rows, np.float32))
        request = Request(id, [x], [Wanted(name) for name in outputs])
        queue.submit(request, time.perf_counter(), None, lambda job, result: results.append(result))

        async def answered() -> bool:
            return bool(results)

        await until("an answer", answered)
        assert isinstance(results[0], Response), results
        return results[0]

    def counted(self) -> tuple[int, int, int]:
        """Hits, misses and calls of the engine."""
        counters = self.metrics.of("m", "1")
        return counters.cache_hits, counters.cache_misses, counters.execs


def row(value: float) -> list[float]:
    return [0, 0, 0, value]


def values(response: Response) -> list[float]:
    return [round(float(value), 3) for value in response.outputs[0].array.ravel()]


async def test_an_equal_request_gets_the_kept_answer_under_its_own_id(tmp_path: Path) -> None:
    served = Served(tmp_path, {"cache": True})
    await served.repository.start()

    first, second = await served.ask(row(10), id="a"), await served.ask(row(10), id="b")

    assert (first.id, second.id) == ("a", "b")
    assert values(first) == values(second) == [9.0, 10.0, 11.0]
    assert served.counted() == (1, 1, 1)
    assert not second.outputs[0].array.flags.writeable


async def test_requests_that_differ_in_anything_that_matters_do_not_share_an_answer(tmp_path: Path) -> None:
    served = Served(tmp_path, {"cache": True})
    await served.repository.start()

    assert values(await served.ask(row(10))) == [9.0, 10.0, 11.0]
    assert values(await served.ask(row(20))) == [18.0, 20.0, 22.0]
    assert values(await served.ask(row(10), row(10))) == [9.0, 10.0, 11.0] * 2
    assert values(await served.ask(row(10), outputs=("y",))) == [9.0, 10.0, 11.0]
    assert values(await served.ask(row(-0.0))) == values(await served.ask(row(0.0))) == [0.0] * 3

    assert served.counted() == (1, 5, 5)  # all outputs are those that there are; -0 and 0 have other bytes


async def test_a_swapped_model_gives_none_of_the_old_ones_answers_and_what_it_kept_goes(tmp_path: Path) -> None:
    served = Served(tmp_path, {"cache": True})
    await served.repository.start()
    assert values(await served.ask(row(10))) == [9.0, 10.0, 11.0]

    onnx_models.linear(served.path, 2.0)
    await served.repository.load("m")

    assert served.answers.bytes == 0
    assert values(await served.ask(row(10))) == [18.0, 20.0, 22.0]
    await served.repository.unload("m")
    assert served.answers.bytes == 0


async def test_a_model_that_says_nothing_keeps_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path, {})
    await served.repository.start()

    for _ in range(2):
        await served.ask(row(10))

    assert served.counted() == (0, 0, 2)
    assert type(served.repository.find("m", "")) is ModelQueue


async def test_a_request_that_does_not_fit_is_refused_as_ever_and_counts_as_neither(tmp_path: Path) -> None:
    served = Served(tmp_path, {"cache": True})
    await served.repository.start()

    with pytest.raises(InvalidInput):
        await served.ask([1, 2, 3])

    assert served.counted() == (0, 0, 0)


async def test_no_more_is_kept_than_may_be_and_what_was_asked_longest_ago_goes_first(tmp_path: Path) -> None:
    one = 3 * 4 + answers._OVERHEAD_BYTES
    served = Served(tmp_path, {"cache": True}, limit_bytes=2 * one)
    await served.repository.start()

    for value in (1, 2, 1, 3, 1, 2):
        await served.ask(row(value))

    assert served.counted()[:2] == (2, 4)  # 1 was found twice; 3 took the place of 2, and 2 that of 3
    assert served.answers.bytes == 2 * one


def test_an_answer_larger_than_everything_is_not_kept_and_drops_nothing() -> None:
    kept = Answers(1000)
    kept.keep((0, b"a"), [Tensor("y", "FP32", np.zeros(10, np.float32))])
    kept.keep((0, b"b"), [Tensor("y", "FP32", np.zeros(1000, np.float32))])

    assert kept.find((0, b"a")) is not None
    assert kept.find((0, b"b")) is None


def test_a_kept_answer_is_a_copy() -> None:
    kept = Answers(10_000)
    batch: Array = np.zeros((64, 4), np.float32)
    kept.keep((0, b"a"), [Tensor("y", "FP32", batch[3:4])])
    batch[:] = 1

    found = kept.find((0, b"a"))

    assert found is not None
    assert found[0].array.tolist() == [[0, 0, 0, 0]]
    assert found[0].array.base is None


TEXTS = st.lists(st.binary(max_size=3), max_size=3)
FLOATS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=2))
OUTPUTS = st.lists(st.sampled_from(["a", "b", "ab", "1:a"]), max_size=3, unique=True)


def content(texts: list[bytes], floats: Array, names: list[str]) -> tuple[object, bytes]:
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    found = answers.digest({"t": array, "x": floats}, [TensorSpec(name, "FP32", ()) for name in names])
    return (texts, floats.shape, floats.tobytes(), names), found


@given(st.tuples(TEXTS, FLOATS, OUTPUTS), st.tuples(TEXTS, FLOATS, OUTPUTS))
def test_equal_digests_are_those_of_equal_content(
    one: tuple[list[bytes], Array, list[str]], other: tuple[list[bytes], Array, list[str]]
) -> None:
    (first, its_digest), (second, other_digest) = content(*one), content(*other)

    assert (first == second) == (its_digest == other_digest)
