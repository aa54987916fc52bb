"""Times as status holds them."""

from __future__ import annotations

import datetime


def timestamp(now: datetime.datetime) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes times."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime.datetime:
    """The time in an RFC 3339 text."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
