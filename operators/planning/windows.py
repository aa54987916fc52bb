"""Windows of time in which something may begin."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Sequence

from operators.api.model import TimeWindow

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WEEK = 7


def opening(windows: Sequence[TimeWindow], now: datetime.datetime) -> datetime.datetime | None:
    """When the next window begins; None where one is open, or there are none. Their time zones must be known."""
    if not windows:
        return None
    found = [span for window in windows for span in _spans(window, now)]
    if any(begin <= now < end for begin, end in found):
        return None
    return min(begin for begin, _ in found if begin > now)


def unknown(windows: Sequence[TimeWindow]) -> str:
    """Which time zones of ``windows`` the time zone database does not have, and what to write; empty: it has all."""
    names = ", ".join(window.timezone for window in windows if _zone(window) is None)
    return f"the time zone database has no {names}; write a name such as Europe/Berlin" if names else ""


def _spans(window: TimeWindow, now: datetime.datetime) -> list[tuple[datetime.datetime, datetime.datetime]]:
    """When ``window`` begins and ends, from yesterday to a week from now; in UTC, which has no hour twice."""
    zone = _zone(window)
    if zone is None:
        return []
    today = now.astimezone(zone).date()
    spans = []
    for offset in range(-1, _WEEK + 1):
        day = today + datetime.timedelta(days=offset)
        if window.days and _DAYS[day.weekday()] not in window.days:
            continue
        begin = _at(day, window.from_, zone)
        end = _at(day, window.to, zone)
        spans.append((begin, end if end > begin else _at(day + datetime.timedelta(days=1), window.to, zone)))
    return spans


def _at(day: datetime.date, clock: str, zone: zoneinfo.ZoneInfo) -> datetime.datetime:
    hours, minutes = map(int, clock.split(":"))
    day += datetime.timedelta(days=hours // 24)
    at = datetime.datetime.combine(day, datetime.time(hours % 24, minutes), zone)
    return at.astimezone(datetime.UTC)


def _zone(window: TimeWindow) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(window.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
