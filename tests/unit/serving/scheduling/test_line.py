import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serving.requests import Request
from serving.scheduling.job import Job, Key
from serving.scheduling.line import MAX_JOINED_BYTES, Line
from serving.tensors import Tensor

A: Key = ((4,),)
B: Key = ((7,),)


def job(name: str, key: Key | None = A, rows: int = 1, priority: int = 0, size_bytes: int = 0) -> Job:
    request = Request(name, [Tensor("x", "FP32", np.zeros(1, np.float32))], priority=priority)
    made = Job(request, {}, (), 0.0, math.inf, lambda *_: None, lambda _: None)
    made.key, made.rows, made.size_bytes = key, rows, size_bytes
    return made


def picked(line: Line) -> list[str]:
    """Each call, by the names of those who share it."""
    calls = []
    while (jobs := line.pick()) is not None:
        calls.append("".join(job.request.id for job in jobs))
    assert line.rows == 0
    return calls


@pytest.mark.parametrize(
    ("waiting", "calls"),
    [
        ([], []),
        ([job("a"), job("b"), job("c")], ["abc"]),
        ([job("a"), job("b"), job("c"), job("d"), job("e")], ["abcd", "e"]),
        ([job("a"), job("x", B), job("b"), job("y", B)], ["ab", "xy"]),
        ([job("a", None), job("b", None), job("c")], ["a", "b", "c"]),
        ([job("a"), job("b", None), job("c")], ["ac", "b"]),
        ([job("a", rows=3), job("b", rows=2), job("c")], ["a", "bc"]),
        ([job("a", rows=2), job("b", rows=2), job("c")], ["ab", "c"]),
        ([job("a", rows=9, key=None), job("b")], ["a", "b"]),
        ([job("a"), job("b", priority=1)], ["ba"]),
        ([job("a", priority=200), job("b"), job("c", priority=99)], ["cba"]),
        ([job("a"), job("x", B, priority=1), job("y", B, priority=200)], ["xy", "a"]),
        ([job("a"), job("b"), job("c"), job("d"), job("e", priority=5), job("f", priority=500)], ["eabc", "df"]),
        ([job("a", size_bytes=MAX_JOINED_BYTES), job("b", size_bytes=1), job("c")], ["a", "bc"]),
        ([job("a", size_bytes=2 * MAX_JOINED_BYTES), job("b")], ["a", "b"]),
    ],
)
def test_who_shares_a_call_follows_from_shape_order_priority_rows_and_bytes(
    waiting: Sequence[Job], calls: list[str]
) -> None:
    line = Line(4, 0.0)
    for one in waiting:
        line.put(one)

    assert picked(line) == calls


def test_who_has_left_is_not_picked() -> None:
    line, leaving = Line(4, 0.0), job("b", rows=2, priority=3)
    for one in (job("a"), leaving, job("c")):
        line.put(one)

    line.discard(leaving)
    line.discard(leaving)

    assert (line.rows, picked(line)) == (2, ["ac"])


def test_those_at_the_end_are_sent_away_first() -> None:
    line = Line(4, 0.0)
    for one in (job("a"), job("b"), job("c", priority=1), job("d")):
        line.put(one)

    assert [one.request.id for one in line.discard_beyond(2)] == ["d", "b"]
    assert [one.request.id for one in line.discard_all(lambda one: one.priority == 1)] == ["c"]
    assert picked(line) == ["a"]


class Taking:
    """The engine's thread of this test: it takes until the line is closed."""

    def __init__(self, line: Line) -> None:
        self.calls: list[list[str]] = []
        self.took = threading.Semaphore(0)
        self._line = line
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        while (jobs := self._line.take()) is not None:
            self.calls.append([job.request.id for job in jobs])
            self.took.release()

    def end(self) -> None:
        self._line.close()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_thread_that_waits_is_woken_by_who_comes_and_by_the_end() -> None:
    line = Line(4, 0.0)
    taking = Taking(line)
    for name in "abc":
        line.put(job(name))
        assert taking.took.acquire(timeout=30)

    taking.end()

    assert taking.calls == [["a"], ["b"], ["c"]]


def test_a_request_that_finds_the_engine_idle_waits_for_a_full_call() -> None:
    line = Line(3, 3600.0)
    taking = Taking(line)
    for name in "abc":
        line.put(job(name))
    assert taking.took.acquire(timeout=30)
    line.put(job("d"))

    taking.end()

    assert taking.calls == [["a", "b", "c"], ["d"]]


def test_a_request_that_finds_the_engine_idle_goes_alone_when_nobody_comes() -> None:
    line = Line(3, 0.01)
    taking = Taking(line)
    line.put(job("a"))

    assert taking.took.acquire(timeout=30)
    taking.end()

    assert taking.calls == [["a"]]


def test_those_who_came_while_the_engine_was_busy_wait_for_nobody() -> None:
    line = Line(3, 3600.0)
    for name in "ab":
        line.put(job(name))

    assert [one.request.id for one in line.take() or ()] == ["a", "b"]
