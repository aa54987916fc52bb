import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.planning.analysis import dispersion

QUIET = ((1000, 10), (1000, 9), (1000, 11), (1000, 10))
STALLED = ((1000, 10), (1000, 9), (1000, 211), (1000, 10))


def after(*ticks: tuple[tuple[int, ...], ...]) -> float:
    levels = dispersion.fresh()
    for servers in ticks:
        levels = dispersion.counted(levels, servers)
    return dispersion.effect(one for level in levels for one in level.scatters)


def test_servers_that_fail_alike_have_no_design_effect() -> None:
    assert after(*[tuple((n, x, n - x) for n, x in QUIET)] * 40) == 1.0


def test_a_server_that_fails_many_at_once_shows_and_goes_on_showing_among_quiet_ticks() -> None:
    quiet, stalled = (tuple((n, x, n - x) for n, x in servers) for servers in (QUIET, STALLED))
    assert after(stalled) > 50
    assert after(*[quiet] * 20, stalled, *[quiet] * 20) > 20


def test_one_server_is_compared_with_itself_over_time() -> None:
    assert after(*[((1000, 10, 990),)] * 40) == 1.0
    assert after(*[((1000, 10, 990),), ((1000, 200, 800),)] * 20) > 10


def test_nothing_bad_says_nothing() -> None:
    assert after(*[((1000, 0, 1000), (1000, 0, 1000))] * 40) == 1.0


@given(st.integers(1, 70))
def test_windows_of_each_length_are_all_ticks_but_those_that_wait(ticks: int) -> None:
    levels = dispersion.fresh()
    for _ in range(ticks):
        levels = dispersion.counted(levels, ((10, 1, 9), (10, 2, 8)))
    waiting = [len(level.servers) > 0 for level in levels]
    assert waiting == [bool(ticks >> place & 1) for place in range(dispersion.LEVELS)]


def test_the_divisor_is_one_without_an_effect_and_grows_with_the_odds_that_are_bet_on() -> None:
    assert [dispersion.divisor(1.0, odds) for odds in (0.5, 1.0, 1.5, 30.0)] == [1.0] * 4
    found = [dispersion.divisor(11.0, odds) for odds in (0.5, 1.0, 1.5, 30.0)]
    assert found == [16.0, 16.0, pytest.approx(17.1, abs=0.1), pytest.approx(29.9, abs=0.1)]
