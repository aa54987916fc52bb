from __future__ import annotations

import datetime

import pytest

from operators.api.model import TimeWindow
from operators.planning import windows

OFFICE = {"days": ["Mon", "Tue", "Wed", "Thu"], "from": "09:00", "to": "16:00", "timezone": "Europe/Berlin"}
NIGHT = {"from": "22:00", "to": "06:00"}


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        (OFFICE, "2026-11-23T08:00", None),
        (OFFICE, "2026-11-23T14:59", None),
        (OFFICE, "2026-11-23T07:59", "2026-11-23T08:00"),
        (OFFICE, "2026-11-26T15:00", "2026-11-30T08:00"),
        (OFFICE, "2026-10-24T08:00", "2026-10-26T08:00"),
        (OFFICE, "2026-10-22T15:00", "2026-10-26T08:00"),
        (NIGHT, "2026-11-23T23:00", None),
        (NIGHT, "2026-11-23T05:59", None),
        (NIGHT, "2026-11-23T06:00", "2026-11-23T22:00"),
        ({}, "2026-11-23T06:00", None),
    ],
)
def test_a_window_is_open_by_the_clock_of_its_own_time_zone(
    window: dict[str, object], now: str, opens: str | None
) -> None:
    def at(text: str) -> datetime.datetime:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)

    expected = at(opens) if opens else None
    assert windows.opening([TimeWindow.model_validate(window)], at(now)) == expected


def test_without_windows_it_is_always_open() -> None:
    assert windows.opening([], datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)) is None


def test_a_time_zone_that_nobody_knows_is_named() -> None:
    said = "the time zone database has no Mars/Olympus; write a name such as Europe/Berlin"
    assert windows.unknown([TimeWindow(timezone="Mars/Olympus"), TimeWindow()]) == said
    assert windows.unknown([TimeWindow()]) == ""
