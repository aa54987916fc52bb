"""What the planner wants and what it saw: plain values that the planner and the actuators share.

A ``Plan`` is complete: what it does not name must not exist. Acting on the same plan twice changes
nothing. An ``Observation`` holds facts only, as the actuator last saw them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from operators.api.endpoint import Assignment
from operators.api.outcomes import Told
from operators.api.resources import Resources
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import BuildReport, EndpointStatus, ModelStatus, Otherwise

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
class Build:
    """Variants to be made, measured and judged together."""

    name: str
    """A hash of the document: the same build is never made twice."""
    document: str = dataclasses.field(compare=False)
    """What the builder is asked, as JSON (``serving.variants.recipe``)."""


class BuildState(enum.StrEnum):
    RUNNING = "Running"
    DONE = "Done"
    REFUSED = "Refused"
    """Source or data cannot be used: only a change of spec or data can help."""
    UNAVAILABLE = "Unavailable"
    """Storage, memory or a toolchain was missing; it is tried again with backoff."""


@dataclasses.dataclass(frozen=True)
class BuildObserved:
    state: BuildState
    message: str = ""
    """What it is about, or why it came to nothing."""
    report: BuildReport | None = None
    """Of a build that is done."""


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
    otherwise: Otherwise | None = None
    """What a replica serves whose processor is not one that the variant was proven for."""


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
    otherwise: int = 0
    """Replicas that serve ``Workload.otherwise``."""
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
class Mirror:
    """Copies of a share of the requests of a route's other arm, and whether the answers to them agree."""

    revision: str
    """Who gets the copies: one of the route's arms, whatever its weight."""
    weight: int
    """Share of the other arm's requests, in 0.01 %."""
    compare: str
    """How answers are compared, as JSON: ``{"output": the contract's, "tolerance": 0.001, "top": 5}``."""


@dataclasses.dataclass(frozen=True)
class Route:
    """Traffic for one Model. No arms: known, but nothing serves it (503 with ``message``)."""

    namespace: str
    name: str
    arms: tuple[Arm, ...]
    message: str = ""
    observe: bool = False
    """Whether the data plane is to count this Model's inference requests, and tell what it counted."""
    mirror: Mirror | None = None
    """For whom requests are copied; None: for nobody."""
    assignment: Assignment | None = None
    """What keeps a client at one arm; None: each request is drawn by itself."""
    max_concurrent: int | None = None
    """Requests that one arm may have under way through one router; None: any number."""
    feedback: bool = False
    """Whether answers are to name an id, by which users may say that they were right or wrong."""


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What clients may report of the answers that they got from an Endpoint."""

    experiment: str
    """Which experiment they belong to; a name of its own for each."""
    metric: str
    """What is counted of them."""
    arms: tuple[str, ...]
    """Names of the arms; while units are assigned, one for each share of the split."""
    assigns: bool = True
    """Whether units are assigned now; if not, only outcomes of those that were assigned before are taken."""


@dataclasses.dataclass(frozen=True)
class Shadow:
    """Copies of a share of an Endpoint's requests for another Model, and whether the answers to them agree."""

    model: str
    weight: int
    """Share of the requests, in 0.01 %; of the units where the Endpoint is sticky."""
    compare: str
    """As in ``Mirror``."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Traffic for one Endpoint: shares over Models, each of which has its Route."""

    namespace: str
    name: str
    shares: tuple[tuple[str, int], ...]
    """(Model name, weight); weights add up to ``FULL_WEIGHT``."""
    assignment: Assignment | None = None
    """What keeps a client at one share; None: each request is drawn by itself."""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Model of each arm by the arm's name, by which a client may ask for it, whatever its weight."""
    outcomes: Outcomes | None = None
    """None: none are taken."""
    shadows: tuple[Shadow, ...] = dataclasses.field(default=(), kw_only=True)
    share_arms: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """Names of the arms whose shares these are, for answers; of an operator of before: none."""


EDGES = (10, 11, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 63, 71, 80, 90)
"""Lower edges of the cells of one decade of latency: the preferred numbers R20 (ISO 3), to two digits."""
CELLS: tuple[int, ...] = tuple(edge * 10**decade for decade in range(8) for edge in EDGES)
"""Lower edges of all cells of latency, in microseconds."""
MOST_SERVERS = 12
"""Servers of a workload whose counts are looked at and told apart; of more, the first by name."""


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was counted of one workload since counting began."""

    answered: int = 0
    """Requests that came to an end, well or not. Of a shadow: copies it was sent."""
    failed: int = 0
    """Of these: an HTTP status of 400 or more, a gRPC status other than 0, an error that the router itself made, or no
    answer at all because server or client went away before.
    """
    latency: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Requests answered well, by the lower edge of their cell, one of ``CELLS``."""
    servers: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    """Answered and failed of each of its servers; what no server answered belongs to none."""
    server_latency: Mapping[str, Mapping[int, int]] = dataclasses.field(default_factory=dict)
    """``latency`` of each of its servers that answered any well; empty where they are not told apart."""
    agreed: int = 0
    """Mirrored requests to which it answered as the stable revision did. They are none of ``answered``."""
    disagreed: int = 0
    """Mirrored requests to which it did not."""
    judged: int = 0
    """Answers of it of which users told whether they were right."""
    wrong: int = 0
    """Of these: they were wrong."""


@dataclasses.dataclass(frozen=True)
class RouteObserved:
    """What the data plane itself reports, never what was asked of it."""

    arms: tuple[Arm, ...]
    in_flight: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Requests under way, by workload; a workload missing here has none and gets none."""
    told_by: str = ""
    """Whose word this is, where it is not the data plane's own."""
    counts: Mapping[str, Mapping[str, Counts]] = dataclasses.field(default_factory=dict)
    """By source, which is one process of a router, and by workload, or of an Endpoint by Model that gets copies. A
    source's counters begin at zero with it and only grow; what is missing here is not known, and never zero. Of Models
    alone whose route asks for it (``observe``), and of Endpoints with shadows.
    """
    read_s: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """When each source's counters were read, in seconds by a clock of its own: one whose time has not moved on since
    has said nothing new.
    """
    outcomes: Mapping[str, Told] = dataclasses.field(default_factory=dict)
    """What clients have reported of an Endpoint's answers, by source. What is missing here is not known."""


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
    gateway: str = ""
    """What routes in the place of our router, and so neither keeps a client at an arm nor limits one, nor
    counts what clients report.
    """
    look_again_s: float | None = None
    """When more will be seen without any change."""
    builds: Mapping[Build, BuildObserved] = dataclasses.field(default_factory=dict)
    cannot_build: str = ""
    """Why no variants are made here; empty where they are."""
    cannot_deploy_as: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Kinds of ``ServingRuntime.spec.deployAs`` that cannot be made here, and why."""


@dataclasses.dataclass(frozen=True)
class Event:
    """A decision, told once to whoever reads about the object."""

    name: str
    """Unique in its namespace: what has the same name is the same, and not told again."""
    action: str
    """What it is about, in one word."""
    reason: str
    """What became of it, in one word."""
    note: str
    """The same in a sentence."""
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that should exist for one object, and what to tell its owner."""

    fetches: frozenset[Fetch] = frozenset()
    """Artifacts that must be at hand, those kept to go back to included; others may be deleted."""
    builds: tuple[Build, ...] = ()
    workloads: tuple[Workload, ...] = ()
    route: Route | Split | None = None
    status: ModelStatus | EndpointStatus | None = None
    """None: the object is gone and has no status."""
    look_again_s: float | None = None
    """When to plan again even if nothing is seen to change."""
    reason: str = ""
    """What this plan changes and why, in one sentence; for the reconcile's log line."""
    events: tuple[Event, ...] = ()
    """What this plan decides that people should hear of where they read about the object."""
