import pytest

from benchmarks.generators import Run, Unusable, h2load_run, wrk_run

WRK = """Running 1s test @ http://127.0.0.1:1
{"requests": 10, "duration_us": 2000000, "p50_us": 1500, "p99_us": 9000, "failed": 1}
"""
H2LOAD = """starting benchmark...
finished in 500.00ms, 8.00 req/s, 1B/s
requests: 4 total, 4 started, 4 done, 4 succeeded, 0 failed, 0 errored, 0 timeout
"""


def test_what_wrk_saw_is_read_from_the_line_its_script_prints() -> None:
    assert wrk_run(WRK) == Run(requests=10, failed=1, seconds=2.0, p50_ms=1.5, p99_ms=9.0)


def test_what_h2load_saw_is_read_from_its_log() -> None:
    log = "1\t200\t2000\n2\t503\t5\n"
    assert h2load_run(H2LOAD, log) == Run(requests=1, failed=1, seconds=0.5, p50_ms=2.0, p99_ms=2.0)


def test_a_generator_that_measured_nothing_is_an_error() -> None:
    with pytest.raises(Unusable, match="wrk said nothing: unable to connect"):
        wrk_run("unable to connect")
    with pytest.raises(Unusable, match="h2load said nothing"):
        h2load_run(H2LOAD, "")
