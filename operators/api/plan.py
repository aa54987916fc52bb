"""What the planner wants and what it saw: plain values that the planner and the actuators share.

A ``Plan`` is complete: what it does not name must not exist. Acting on the same plan twice changes
nothing. An ``Observation`` holds facts only, as the actuator last saw them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from operators.api.resources import Resources
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import EndpointStatus, ModelStatus

FULL_WEIGHT = 10_000
"""All of a route's traffic; one unit is 0.01 %."""


@dataclasses.dataclass(frozen=True)
class Key:
    """Names one object: what a reconcile works on."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclasses.dataclass(frozen=True)
class Fetch:
    """An artifact that must be at hand. ``digest`` None: find out what is there now."""

    uri: str
    digest: str | None


class FetchState(enum.StrEnum):
    FETCHING = "Fetching"
    FETCHED = "Fetched"
    REFUSED = "Refused"
    """Wrong digest, missing, or not an artifact: only a change of spec or source can help."""
    UNAVAILABLE = "Unavailable"
    """Storage did not answer or is full; it is tried again with backoff."""


@dataclasses.dataclass(frozen=True)
class FetchObserved:
    state: FetchState
    digest: str | None = None
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Workload:
    """Replicas of one engine process serving one variant of one revision."""

    name: str
    """Unique in its namespace, deterministic, at most 63 characters: MODEL-REVISION-VARIANT."""
    namespace: str
    model: str
    revision: str
    variant: str
    artifact: Fetch
    """With its digest known."""
    runtime: ServingRuntimeSpec
    replicas: int | None
    """None: somebody else owns the number (an autoscaler)."""
    resources: Resources
    settings: str = ""
    """What the engine is told about batching and limits, as JSON (``serving.settings``); empty: nothing."""


@dataclasses.dataclass(frozen=True)
class WorkloadObserved:
    """``ready`` counts replicas that answer their readiness probe."""

    wanted: int
    ready: int
    restarts: int = 0
    reason: str = ""
    """The cause in one word, where there is a word for it."""
    message: str = ""
    """Why a replica is not ready: which, the process's own last words, what to do. Empty when nothing is known to be
    wrong.
    """
    doing: str = ""
    """What a replica is about that is not ready although nothing is known to be wrong."""
    recovering: bool = False
    """All replicas answer, but one of them had ended and has not answered for long: it may be about to end again."""
    refused: bool = False
    """The process ended with ``Exit.REFUSED``: starting it again cannot help."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A share of a route's traffic. Weights of a route add up to ``FULL_WEIGHT``."""

    workload: str
    revision: str
    variant: str
    weight: int


@dataclasses.dataclass(frozen=True)
class Route:
    """Traffic for one Model. No arms: known, but nothing serves it (503 with ``message``)."""

    namespace: str
    name: str
    arms: tuple[Arm, ...]
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Split:
    """Traffic for one Endpoint: shares over Models, each of which has its Route."""

    namespace: str
    name: str
    shares: tuple[tuple[str, int], ...]
    """(Model name, weight); weights add up to ``FULL_WEIGHT``."""
    sticky_header: str | None = None


@dataclasses.dataclass(frozen=True)
class RouteObserved:
    """What the data plane itself reports, never what was asked of it."""

    arms: tuple[Arm, ...]
    in_flight: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Requests under way, by workload; a workload missing here has none and gets none."""
    told_by: str = ""
    """Whose word this is, where it is not the data plane's own."""


@dataclasses.dataclass(frozen=True)
class Observation:
    fetches: Mapping[Fetch, FetchObserved] = dataclasses.field(default_factory=dict)
    workloads: Mapping[str, WorkloadObserved] = dataclasses.field(default_factory=dict)
    """Every workload that exists for the Model, wanted or not."""
    route: RouteObserved | None = None
    """None: the data plane has not reported on it yet."""
    url: str = ""
    """Where clients reach the route; empty while unknown."""
    route_message: str = ""
    """Why ``route`` is not what was asked, where that is known."""
    not_sticky: str = ""
    """What cannot keep a client at one arm of a route; empty where it can be done."""
    look_again_s: float | None = None
    """When more will be seen without any change."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that should exist for one object, and what to tell its owner."""

    fetches: frozenset[Fetch] = frozenset()
    """Artifacts that must be at hand, those kept to go back to included; others may be deleted."""
    workloads: tuple[Workload, ...] = ()
    route: Route | Split | None = None
    status: ModelStatus | EndpointStatus | None = None
    """None: the object is gone and has no status."""
    look_again_s: float | None = None
    """When to plan again even if nothing is seen to change."""
    reason: str = ""
    """What this plan changes and why, in one sentence; for the reconcile's log line."""
