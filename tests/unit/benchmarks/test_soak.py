import math

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.soak import Moment, judged, slope

MIB = 2**20 / 1e6


@given(mib_per_hour=st.floats(-100, 100), start_mib=st.floats(10, 1000))
def test_the_slope_of_a_line_is_its_own_and_certain(mib_per_hour: float, start_mib: float) -> None:
    found = slope([Moment(60.0 * i, start_mib + mib_per_hour * i / 60, 1) for i in range(30)])
    for value in (found.mb_per_hour, found.low, found.high):
        assert math.isclose(value, mib_per_hour * MIB, abs_tol=1e-3)


def test_the_interval_of_a_slope_is_as_the_textbook_says() -> None:
    # Residuals of ±1 MB about 2 MB/h at -1.5, -0.5, 0.5 and 1.5 h: s² = 4/2, divided by 5.
    moments = [Moment(3600.0 * i, (2 * i + offset) / MIB, 1) for i, offset in enumerate((1, -1, -1, 1))]
    found = slope(moments)
    assert math.isclose(found.mb_per_hour, 2.0)
    assert math.isclose(found.high - found.low, 2 * 1.96 * math.sqrt(2 / 5))


def test_what_grows_only_while_it_warms_up_and_connections_that_come_and_go_are_no_leak() -> None:
    moments = [Moment(10.0 * i, 100.0 + (20 - i if i < 10 else 0), 50 + i % 3) for i in range(60)]
    found = judged(moments, warm_s=100.0, failed=0)
    assert all(found["targets"].values())
    assert (found["uss_mib"], found["file_descriptors"]) == ([100.0, 100.0], [52, 52])


def test_a_leak_of_either_is_seen() -> None:
    moments = [Moment(10.0 * i, 100.0 + i * 0.1, 50 + i // 5) for i in range(60)]
    assert judged(moments, warm_s=0.0, failed=1)["targets"] == {
        "memory slope < 1 MB/h": False,
        "file descriptors flat": False,
        "no request failed": False,
    }
