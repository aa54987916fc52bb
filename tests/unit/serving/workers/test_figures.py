"""Metrics of several processes, added up."""

import orjson

from serving.telemetry import metrics
from serving.telemetry.metrics import Metrics
from serving.workers import figures


def counted(successes: int, failures: int, pending: int) -> Metrics:
    made = Metrics()
    counters = made.of("digits", "1")
    for number in range(successes):
        counters.executed(number % 3 + 1, 0.25, 1.0)
        counters.succeeded(0.25)
    for _ in range(failures):
        counters.failed("REJECTED")
    counters.pending = pending
    return made


def models(text: str) -> list[str]:
    """What the text says of models, and nothing of the process."""
    return [line for line in text.splitlines() if "{model=" in line]


def travelled(counted: Metrics) -> list[object]:
    there: list[object] = orjson.loads(orjson.dumps(figures.of(counted.families())))
    return there


def test_the_figures_of_two_processes_are_those_of_one_that_did_both_their_work() -> None:
    of_both = figures.added([travelled(counted(3, 1, 2)), travelled(counted(6, 0, 5))])

    assert models(metrics.text(figures.families(of_both))) == models(counted(9, 1, 7).text())


def test_a_process_that_ended_leaves_what_it_counted_and_nothing_that_it_held() -> None:
    gone = figures.without_gauges(travelled(counted(3, 1, 2)))

    left = figures.added([gone, travelled(counted(0, 0, 0))])
    assert sorted(models(metrics.text(figures.families(left)))) == sorted(models(counted(3, 1, 0).text()))


def test_a_model_that_one_process_alone_has_is_counted_too() -> None:
    other = Metrics()
    other.of("other", "2").succeeded(1.0)

    said = metrics.text(figures.families(figures.added([travelled(counted(2, 0, 0)), travelled(other)])))

    assert 'nv_inference_request_success{model="digits",version="1"} 2' in said
    assert 'nv_inference_request_success{model="other",version="2"} 1' in said


def test_a_server_is_as_old_as_its_oldest_process() -> None:
    oldest, youngest = (
        [["process_start_time_seconds", "gauge", "When", [[[], at]]], ["process_open_fds", "gauge", "Open", [[[], 5]]]]
        for at in (100.0, 200.0)
    )

    assert figures.added([youngest, oldest]) == [
        ["process_start_time_seconds", "gauge", "When", [[(), 100.0]]],
        ["process_open_fds", "gauge", "Open", [[(), 10]]],
    ]
