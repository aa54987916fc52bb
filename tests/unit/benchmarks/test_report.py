import math

from benchmarks.load import Sample
from benchmarks.report import Summary, summarise, text


def test_failures_are_counted_by_kind_and_have_no_latency() -> None:
    samples = [Sample(float(due), 0.001 * (due + 1), "") for due in range(100)]
    samples += [Sample(3.0, 30.0, "ReadTimeout"), Sample(4.0, 0.1, "HTTP 503"), Sample(5.0, 0.1, "HTTP 503")]
    summary = summarise(samples)
    assert summary.requests == 103
    assert summary.failed == {"ReadTimeout": 1, "HTTP 503": 2}
    figures = (summary.rate, summary.p50_ms, summary.p90_ms, summary.p99_ms)
    expected = (100 / 99.1, 50.5, 90.1, 99.01)
    assert all(math.isclose(got, wanted) for got, wanted in zip(figures, expected, strict=True))


def test_a_run_without_a_good_answer_has_no_percentiles() -> None:
    summary = summarise([Sample(0.0, 0.1, "HTTP 503")])
    assert (summary.requests, summary.failed, summary.rate) == (1, {"HTTP 503": 1}, 0.0)
    assert all(math.isnan(value) for value in (summary.p50_ms, summary.p90_ms, summary.p99_ms))


def test_a_report_says_what_is_needed_to_repeat_it() -> None:
    summary = Summary(10, {"HTTP 503": 2}, 8.0, 1.0, 2.0, 3.456)
    assert text("How long?", {"machine": "x86_64", "commit": "abc"}, summary).splitlines() == [
        "How long?",
        "",
        "machine   x86_64",
        "commit    abc",
        "requests  10",
        "failed    2 × HTTP 503",
        "rate      8.0/s",
        "p50       1.00 ms",
        "p90       2.00 ms",
        "p99       3.46 ms",
    ]
