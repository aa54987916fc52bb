import random
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import GrpcCode, Overloaded
from serving.scheduling import admission
from serving.scheduling.admission import TOO_MUCH, Admission, Bounds, Pressure

FULL = "has 8 requests waiting, its limit; send again later, or raise limits.maxPending"
HEAVY = "has 90 bytes waiting, this request has 11; the limit is 100: send again later, or raise limits.maxPendingBytes"


@pytest.mark.parametrize(
    ("requests", "held", "size", "waiting", "pressed", "max_rows", "refused"),
    [
        (0, 0, 10**9, 0, False, 1, None),  # the only one there is may have any size
        (7, 90, 10, 6, False, 1, None),
        (8, 0, 0, 7, False, 1, FULL),
        (1, 90, 11, 0, False, 1, HEAVY),
        (7, 0, 0, 5, True, 1, None),
        (7, 0, 0, 6, True, 1, TOO_MUCH),
        (7, 0, 0, 31, True, 32, None),
        (7, 0, 0, 32, True, 32, TOO_MUCH),
        (7, 0, 0, 32, False, 32, None),
    ],
)
def test_what_may_wait_follows_from_number_bytes_and_pressure(
    requests: int, held: int, size: int, waiting: int, pressed: bool, max_rows: int, refused: str | None
) -> None:
    assert Bounds(8, 100, max_rows).refusal(requests, held, size, waiting, 0.0, pressed) == refused


@pytest.mark.parametrize(
    ("max_requests", "requests", "wait_s", "taken"),
    [
        (None, 127, 60.0, True),
        (None, 128, 0.26, False),
        (None, 128, 0.24, True),
        (None, 900, 0.24, True),
        (900, 899, 60.0, True),
        (8, 8, 0.001, False),
    ],
)
def test_where_nothing_is_said_a_quick_model_may_have_more_requests_than_a_slow_one(
    max_requests: int | None, requests: int, wait_s: float, taken: bool
) -> None:
    refused = Bounds(max_requests, 10**9, 32).refusal(requests, 0, 0, requests - 32, wait_s, False)

    assert (refused is None) is taken


@pytest.mark.parametrize(
    ("refusals", "asked", "stands"),
    [
        ([], 0.0, False),
        ([0.0], 0.0, False),
        ([0.0, 0.09], 0.09, False),
        ([0.0, 0.05, 0.1], 0.1, True),
        ([0.0, 0.05, 0.1], 0.2, True),
        ([0.0, 0.05, 0.1], 0.21, False),
        ([0.0, 0.11, 0.2], 0.2, False),
        ([0.0, 0.11, 0.2, 0.22], 0.23, True),
        ([0.0, 0.1, 0.2, 5.0], 5.0, False),
    ],
)
def test_pressure_stands_after_an_interval_of_refusals_and_ends_after_one_without(
    refusals: Sequence[float], asked: float, stands: bool
) -> None:
    pressure = Pressure()
    for at in refusals:
        pressure.refused(at, 0.1)

    assert pressure.stands(asked, 0.1) is stands


@given(st.lists(st.floats(0.001, 0.3), min_size=1))
def test_pressure_never_stands_before_refusals_went_on_for_an_interval(pauses: list[float]) -> None:
    pressure, now, since = Pressure(), 0.0, -1.0
    for pause in pauses:
        last, now = now, now + pause
        since = now if now - last > 0.1 or since < 0 else since
        pressure.refused(now, 0.1)
        assert pressure.stands(now, 0.1) is (now - since >= 0.1)
        assert not pressure.stands(now + 0.11, 0.1)


def test_a_slow_model_has_longer_bursts() -> None:
    assert (admission.interval_s(0.0), admission.interval_s(0.001), admission.interval_s(0.5)) == (0.1, 0.1, 1.5)


def test_a_process_holds_no_more_bytes_and_requests_than_it_may() -> None:
    process = Admission(2, 10)

    assert process.hold(10) is None
    refused = process.hold(1)
    assert (type(refused), process.bytes) == (Overloaded, 10)
    process.requests = 2
    refused = process.refusal()
    assert str(refused) == "the server has 2 requests in work, its limit (--max-requests); send again later"
    assert (refused and refused.http, refused and refused.grpc, refused and refused.retry_after_s) == (
        503, GrpcCode.UNAVAILABLE, 1.0,
    )  # fmt: skip


class Simulated:
    """Arrivals at random at a model that answers up to ``max_rows`` at once, under the rules of this package."""

    def __init__(self, call_s: Callable[[int], float], max_rows: int) -> None:
        self.call_s, self.max_rows = call_s, max_rows
        self.bounds, self.pressure = Bounds(None, 10**9, max_rows), Pressure()
        self.waiting: deque[float] = deque()
        self.free_at = 0.0
        self.in_call = 0
        self.waited: list[tuple[float, float]] = []
        """When each was answered, and after how long."""
        self.refused = 0

    def run(self, begin: float, seconds: float, per_s: float) -> None:
        chance = random.Random(5)
        now, tick = begin, begin
        while now < begin + seconds:
            now += chance.expovariate(per_s)
            self._compute(now)
            while tick < now:
                if self.pressure.stands(tick, self._interval_s()):
                    while len(self.waiting) > self.bounds.slack:
                        self.waiting.pop()
                        self.refused += 1
                tick += 0.1
            pending = len(self.waiting) + self.in_call
            calls = len(self.waiting) // self.max_rows + bool(self.in_call)
            wait_s = self.call_s(self.max_rows) * calls
            stands = self.pressure.stands(now, self._interval_s())
            if self.bounds.refusal(pending, 0, 0, len(self.waiting), wait_s, stands):
                self.pressure.refused(now, self._interval_s())
                self.refused += 1
            else:
                self.waiting.append(now)

    def _interval_s(self) -> float:
        return admission.interval_s(self.call_s(self.max_rows))

    def _compute(self, until: float) -> None:
        while self.waiting and (begun := max(self.free_at, self.waiting[0])) <= until:
            came = [self.waiting.popleft()]
            while self.waiting and self.waiting[0] <= begun and len(came) < self.max_rows:
                came.append(self.waiting.popleft())
            self.free_at, self.in_call = begun + self.call_s(len(came)), len(came)
            self.waited += [(self.free_at, self.free_at - at) for at in came]
        if self.free_at <= until:
            self.in_call = 0


def p99(waited: list[tuple[float, float]]) -> float:
    return sorted(after for _, after in waited)[int(len(waited) * 0.99)]


@pytest.mark.parametrize(
    ("call_s", "max_rows"),
    [
        (lambda rows: 0.004, 1),
        (lambda rows: 0.01, 1),
        (lambda rows: 0.05, 1),
        (lambda rows: 0.0019 + 0.00021 * rows, 32),
        (lambda rows: 0.05 + 0.005 * rows, 16),
    ],
)
def test_at_ten_times_its_capacity_a_model_answers_as_many_as_it_can_and_those_it_takes_soon(
    call_s: Callable[[int], float], max_rows: int
) -> None:
    peak_per_s = max_rows / call_s(max_rows)
    usual = Simulated(call_s, max_rows)
    usual.run(0, 60, 0.8 * peak_per_s)
    assert usual.refused == 0

    flooded = Simulated(call_s, max_rows)
    flooded.run(0, 60, 10 * peak_per_s)

    assert len(flooded.waited) >= 0.9 * 60 * peak_per_s
    assert p99(flooded.waited) <= 2 * p99(usual.waited)

    flooded.refused, flooded.waited = 0, []
    flooded.run(60, 2, 0.8 * peak_per_s)
    before = flooded.refused
    flooded.run(62, 10, 0.8 * peak_per_s)
    assert flooded.refused == before, "it takes everything again within 2 s"


@pytest.mark.parametrize("clients", [32, 128])
def test_clients_that_wait_for_their_answers_are_never_refused_however_long_the_queue_stands(clients: int) -> None:
    bounds, pressure = Bounds(None, 10**9, 1), Pressure()

    for answered in range(10_000):
        pending = clients - 1
        stands = pressure.stands(answered * 0.004, admission.interval_s(0.004))
        assert bounds.refusal(pending, 0, 0, pending - 1, 0.004 * pending, stands) is None
