from __future__ import annotations

import datetime

import pytest

from operators.runtime.lease import Sighting, claim, is_free

AT = datetime.datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
TIME = "2026-03-01T10:00:00.000005Z"


@pytest.mark.parametrize(
    ("spec", "seen_at", "now", "free"),
    [
        ({}, 100, 100, True),
        ({"holderIdentity": "", "leaseDurationSeconds": 1}, 100, 100, True),
        ({"holderIdentity": "me", "leaseDurationSeconds": 15}, 100, 100, True),
        ({"holderIdentity": "other", "leaseDurationSeconds": 15}, 100, 114.9, False),
        ({"holderIdentity": "other", "leaseDurationSeconds": 15}, 100, 115, True),
        ({"holderIdentity": "other", "leaseDurationSeconds": 60}, 100, 115, False),
        ({"holderIdentity": "other"}, 100, 114.9, False),
        ({"holderIdentity": "other"}, 100, 115, True),
        ({"holderIdentity": "other", "renewTime": "1970-01-01T00:00:00.000000Z"}, 100, 101, False),
        ({"holderIdentity": "other", "renewTime": "2999-01-01T00:00:00.000000Z"}, 100, 115, True),
    ],
)
def test_a_lease_is_free_when_nobody_has_it_or_it_has_not_changed_for_its_duration(
    spec: dict[str, object], seen_at: float, now: float, free: bool
) -> None:
    assert is_free(Sighting(spec, seen_at), "me", now) is free


def test_the_first_claim_counts_no_transition() -> None:
    assert claim({}, "me", 15, AT) == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": TIME,
        "renewTime": TIME,
        "leaseTransitions": 0,
    }


def test_taking_over_counts_a_transition() -> None:
    before = claim({}, "other", 15, AT - datetime.timedelta(minutes=1))
    assert claim(before, "me", 15, AT) == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": TIME,
        "renewTime": TIME,
        "leaseTransitions": 1,
    }


def test_renewing_keeps_when_it_was_taken() -> None:
    before = claim({}, "me", 15, AT - datetime.timedelta(minutes=1))
    assert claim(before, "me", 15, AT) == {**before, "renewTime": TIME}
