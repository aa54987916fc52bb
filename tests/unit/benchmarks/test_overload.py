import math

from benchmarks.load import Sample
from benchmarks.overload import Overload, Phases, judged

PHASES = Phases(calm_s=10.0, flood_s=10.0)


def answered(begin_s: float, end_s: float, rate: float, latency_s: float, error: str = "") -> list[Sample]:
    return [Sample(begin_s + i / rate, latency_s, error) for i in range(round((end_s - begin_s) * rate))]


def test_the_schedule_is_calm_then_a_flood_then_calm_again() -> None:
    due = PHASES.schedule(calm_rate=80.0, flood_rate=1000.0)
    assert list(due) == sorted(due)
    counts = [sum(begin <= moment < begin + 10 for moment in due) for begin in (0, 10, 20)]
    for count, expected in zip(counts, (800, 10_000, 800), strict=True):
        assert abs(count - expected) < 4 * math.sqrt(expected)


def test_a_server_that_refuses_what_it_cannot_take_meets_every_target() -> None:
    samples = answered(0, 10, 80, 0.25) + answered(10, 20, 64, 0.375) + answered(10, 20, 900, 0.0078125, "HTTP 503")
    samples += answered(20, 30, 80, 0.25)
    found = judged(samples, PHASES, peak_rate=64.0, foreign=0.1)
    assert all(found.met.values())
    assert found == Overload(
        peak_rate=64.0,
        goodput=0.99375,
        calm_p99_ms=250.0,
        admitted_p99_ms=375.0,
        admitted_ratio=1.5,
        refused_p99_ms=7.8125,
        recovery_s=0.0,
        errors={"HTTP 503": 9000},
        calm_errors=0,
        late_p99_ms=0.0,
        foreign=0.1,
    )


def test_a_server_that_takes_everything_and_answers_too_late_misses_them() -> None:
    samples = answered(0, 10, 80, 0.01) + answered(10, 20, 1000, 12.0) + answered(20, 25, 64, 8.0, "lost")
    samples += answered(20, 21, 10, 0.5, "HTTP 503")
    found = judged(samples, PHASES, peak_rate=100.0, foreign=0.1)
    assert (found.goodput, found.admitted_ratio, found.recovery_s) == (0.0, 1200.0, 4.984375)
    assert [name for name, met in found.met.items() if met] == ["nothing but refusals"]
