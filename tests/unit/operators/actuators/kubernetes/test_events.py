from __future__ import annotations

import datetime

from operators.actuators.kubernetes import events
from operators.api.plan import Event, Key

KEY = Key("Model", "team", "digits")


def test_an_event_says_what_was_decided_about_which_object() -> None:
    at = datetime.datetime(2026, 3, 1, 12, 0, 0, 5, datetime.UTC)
    told = Event("digits.5e6f.2026-01-02T03:00:00Z.1.RolledBack", "Rollout", "RolledBack", "n" * 1001, is_warning=True)
    event = events.event(KEY, "3f0b", told, at)
    assert event["metadata"] == {"name": "digits.5e6f.2026-01-02t03-00-00z.1.rolledback", "namespace": "team"}
    assert event["eventTime"] == "2026-03-01T12:00:00.000005Z"
    assert (event["regarding"]["kind"], event["regarding"]["uid"]) == ("Model", "3f0b")
    assert (event["action"], event["reason"], event["type"]) == ("Rollout", "RolledBack", "Warning")
    assert event["note"] == "n" * 999 + "…"
