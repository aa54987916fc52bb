"""What is known of an Endpoint's arms by the outcomes that clients reported: for people, and the planner's memory.

The memory holds sums alone, so that an operator killed anywhere goes on from the last report, and a router that is
gone is no loss: what it had counted is in the totals.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from operators.api.base import Seen
from operators.api.outcomes import Flat


class EffectStatus(Seen):
    """By how much an arm's mean outcome is above that of the first arm."""

    value: float
    """The estimate."""
    low: float
    """The truth is not below this."""
    high: float
    """Nor above this."""


class ArmStatus(Seen):
    name: str
    """Name of the arm."""
    weight: int
    """Share of the requests that it is to get, in 0.01 %."""
    units: int = 0
    """Reported outcomes, one for each answer; with sticky assignment one for each client."""
    mean: float | None = None
    """Of the reported outcomes."""
    effect: EffectStatus | None = None
    """What it is worth beside the first arm; left out while too few outcomes are known."""
    out: str = ""
    """Why a bandit took it out; empty: it did not."""


class OutcomeMark(Seen):
    """How far one source's sums are in the totals."""

    source: str
    """A process of a router."""
    arms: dict[str, Flat]
    """By arm."""


class OutcomeMemory(Seen):
    of: str
    """Hash of what the experiment is about; another one begins anew."""
    totals: dict[str, Flat] = {}
    """Sums by arm, of all routers there ever were."""
    recent: dict[str, Flat] = {}
    """What a bandit goes by: the same, but what is older counts less."""
    at: str = ""
    """When sums were last added, RFC 3339."""
    moved: str = ""
    """When a bandit last moved its shares, RFC 3339."""
    marks: tuple[OutcomeMark, ...] = ()
    """The sources that were heard last, the latest first."""


class ExperimentStatus(Seen):
    name: str
    """Which experiment it is, as it stands in each `penstock-request-id`."""
    metric: str
    """What is compared."""
    policy: Literal["fixed", "bandit"]
    """Whether shares follow the outcomes."""
    state: Literal["Running", "Found", "Blocked", "Concluded"]
    """Found: there is a difference; it still goes on. Blocked: the sample ratio is off, so nothing is concluded.
    Concluded: its time is over.
    """
    began: str
    """When, RFC 3339."""
    verdict: str
    """What is known by now, in one sentence with its numbers."""
    arms: Annotated[
        tuple[ArmStatus, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """The arms that have a weight, the first one first."""
    memory: OutcomeMemory
    """What it rests on."""
