"""Conditions: what is so, in one word for programs and one sentence for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from operators.api.base import Condition

Verdict = tuple[bool | None, str, str]
"""Whether it holds (None: unknown), the reason in one word, the message."""


def acted_on(object_: str, ignored: Sequence[str]) -> Verdict:
    """Accepted, naming the fields that are stored and no more."""
    if ignored:
        return True, "PartlyActedOn", f"{object_}: this version stores, but does not act on: {', '.join(ignored)}"
    return True, "Accepted", "every field of the spec is acted on"


def condition(
    type_: str,
    holds: bool | None,
    reason: str,
    message: str,
    *,
    generation: int,
    before: Sequence[Condition],
    at: str,
) -> Condition:
    """The condition ``type_`` now; its transition time is kept from ``before`` while its status is the same."""
    status: Literal["True", "False", "Unknown"] = "Unknown" if holds is None else "True" if holds else "False"
    old = next((c for c in before if c.type == type_), None)
    since = old.last_transition_time if old is not None and old.status == status else at
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
