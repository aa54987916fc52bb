"""Status of a Model and an Endpoint: what people read, and what the planner remembers between ticks."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from operators.api.base import Condition, Seen
from operators.api.contract import Contract
from operators.api.engine import Batching, Limits
from operators.api.evidence import Evidence
from operators.api.experiment import ExperimentStatus
from operators.api.resources import Resources
from operators.api.runtime import ServingRuntimeSpec

Conditions = Annotated[
    tuple[Condition, ...],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]


class SourceStatus(Seen):
    uri: str
    """The URI that was resolved."""
    digest: str
    """What was found there; every replica serves exactly these bytes."""


class Otherwise(Seen):
    """What a replica serves where its processor is not one that the variant was proven for."""

    for_cpu: tuple[str, ...]
    """Features, as Linux names them, of which a processor must have one to serve the variant itself."""
    variant: str
    """The best variant that needs none of them."""
    uri: str
    """Where its artifact is."""
    digest: str
    """Digest of its artifact."""


class Recipe(Seen):
    """All that is needed to run a revision again, whatever the spec says by now."""

    uri: str
    """Where its artifact came from."""
    digest: str
    """Digest of its artifact."""
    runtime: ServingRuntimeSpec
    """The engine as it was described when the revision was made."""
    resources: Resources
    """What each replica needs."""
    contract: Contract | None = None
    """How this revision's input and output are to be read."""
    batching: Batching | None = None
    """How requests are computed together."""
    limits: Limits | None = None
    """What a request may take."""
    otherwise: Otherwise | None = None
    """What replicas serve on processors of another kind; left out where the variant is as good on all."""

    @property
    def settings(self) -> str:
        """What its serving processes are told, as one JSON document; empty where nothing is said."""
        said = {"batching": self.batching, "limits": self.limits}
        document = {key: value.to_dict() for key, value in said.items() if value is not None and value.to_dict()}
        return json.dumps(document, sort_keys=True) if document else ""


class Quality(Seen):
    value: float | None = None
    """What it is worth by the metric; left out where the metric has no value on the samples."""
    drop: float | None = None
    """How much less than the source, on the same samples."""
    drop_upper_bound: float | None = None
    """The most it may be less, at the confidence of the evaluation."""
    worst_slice: str = ""
    """The slice of the data that may have lost most, and how much."""


class VariantStatus(Seen):
    name: str
    """Name of the variant."""
    state: Literal["Selected", "Ready", "Preparing", "NotMade", "Refused"]
    """Selected serves; Ready could; Preparing is being fetched or made; NotMade has passes that nothing runs here;
    Refused cannot serve.
    """
    digest: str | None = None
    """Digest of its artifact."""
    reason: str = ""
    """Why it has this state, in one sentence."""
    bytes: int | None = None
    """Size of its artifact."""
    quality: Quality | None = None
    """What its answers are worth beside the source's."""
    cpu_ms: dict[str, float] = Field(default_factory=dict)
    """Processor time of a call by the number of samples in it, in milliseconds, on one thread."""
    gain: float | None = None
    """How many times less of what the objective counts it takes than the source."""


class BuiltSlice(Seen):
    name: str
    drop_upper_bound: float | None = None


class BuiltQuality(Seen):
    value: float | None = None
    drop: float | None = None
    drop_upper_bound: float | None = None
    worst_slice: BuiltSlice | None = None


class BuiltVariant(Seen):
    name: str
    accepted: bool
    reason: str
    searched_by: str = ""
    uri: str = ""
    digest: str | None = None
    bytes: int | None = None
    quality: BuiltQuality | None = None
    cpu_ms: dict[str, float] = Field(default_factory=dict)
    gain: float | None = None
    for_cpu: tuple[str, ...] = ()
    """As in ``Otherwise``; empty: as good on all."""

    def status(self, state: Literal["Selected", "Ready", "Preparing", "Refused"], reason: str) -> VariantStatus:
        """What is told of it."""
        quality = None
        if (found := self.quality) is not None:
            worst = ""
            if found.worst_slice is not None and found.worst_slice.drop_upper_bound is not None:
                worst = f"{found.worst_slice.name}: {found.worst_slice.drop_upper_bound:.4f}"
            quality = Quality(
                value=found.value, drop=found.drop, drop_upper_bound=found.drop_upper_bound, worst_slice=worst
            )
        return VariantStatus(
            name=self.name,
            state=state,
            digest=self.digest,
            reason=reason,
            bytes=self.bytes,
            quality=quality,
            cpu_ms=self.cpu_ms,
            gain=self.gain,
        )


class BuildReport(Seen):
    """What a builder tells of a finished build; the part that decisions need."""

    variants: tuple[BuiltVariant, ...]
    selected: str
    page: str = ""
    """Where all of it is told."""


class RevisionStatus(Seen):
    name: str
    """Name of the revision: a hash of everything that makes it."""
    variant: str
    """Variant that serves it."""
    recipe: Recipe
    """How it is run."""
    state: Literal["Serving", "Candidate", "Starting", "Draining", "Failed", "Retired", "RolledBack"]
    """Serving gets traffic; Candidate gets a share of it by the steps of a rollout; Starting will; Draining finishes
    what it began; Failed never got ready; Retired is kept to go back to; RolledBack was refused by evidence or by hand.
    """
    weight: int = 0
    """Traffic that reaches it as the router reports, in 0.01 %."""
    replicas: int | None = None
    """Replicas it is given while traffic moves by steps; left out: as many as the spec says, or none."""
    ready_replicas: int = 0
    """Replicas that answer."""
    restarts: int = 0
    """How often its processes have ended and were started again."""
    since: str
    """When it got this state, RFC 3339."""
    reason: str = ""
    """Why not all of its replicas answer, in one word, such as OutOfMemory or ImagePullFailed."""
    message: str = ""
    """The same in a sentence: which replica, its last words, what to do."""


class Standing(Seen):
    """An e-value and from where on it decides."""

    e: float
    """The e-value by now: 1 where nothing is shown."""
    bound: float
    """From here on it decides."""


class Point(Seen):
    """Where a rollout was at one time."""

    at: str
    """When, RFC 3339."""
    asked: int
    """Traffic that was asked for the revision from then on, in 0.01 %."""
    observed: int
    """Traffic that reached it as the router reported, in 0.01 %."""
    against: float | None = None
    """The e-value against it; left out where nothing is analysed."""
    in_favour: float | None = None
    """The e-value in favour of it."""


class RolloutStatus(Seen):
    """The latest rollout by steps: how far it is, or how it ended."""

    revision: str
    """The revision that is to serve."""
    stable: str
    """The revision it is to replace."""
    began: str
    """When, RFC 3339; commands name it, so that one that was meant for an earlier rollout does nothing."""
    state: Literal["Progressing", "Paused", "Waiting", "Promoted", "RolledBack", "Withdrawn"]
    """Waiting stands for something else to end first; Withdrawn: the spec asks for another revision by now."""
    step: int = 0
    """The present step, from 0; the number of steps: all were stood, the rest of the traffic moves."""
    steps: int = 0
    """How many steps there are."""
    target: int = 0
    """Traffic that the revision is to get in this step, in 0.01 %."""
    weight: int = 0
    """Traffic that was asked for it, in 0.01 %."""
    observed: int = 0
    """Traffic that reaches it as the router reports, in 0.01 %."""
    reached: bool = False
    """Whether the router reports what this step is to give it."""
    since: str
    """Since when that is so, RFC 3339."""
    mirrored_since: str = ""
    """Since when requests are mirrored to it, RFC 3339; empty: not at all."""
    message: str
    """Why it is where it is, in one sentence."""
    next: str = ""
    """What comes next."""
    next_at: str = ""
    """When, where that is known, RFC 3339."""
    verdict: str = ""
    """What the analysis says by now, in one sentence with its numbers."""
    against: Standing | None = None
    """The evidence that it is worse than the stable revision; at the bound it is rolled back."""
    in_favour: Standing | None = None
    """The evidence that it is not worse than allowed; at the bound it may be promoted."""
    detection: str = ""
    """In which time, with this traffic, what is not tolerated is found."""
    detection_s: float | None = None
    """That time for errors, in seconds; left out while the traffic is not known."""
    latency_detection_s: float | None = None
    """The same for latency; left out, too, where latency is not judged."""
    agreement_detection_s: float | None = None
    """The same for answers that differ twice as often as is allowed; left out, too, where none are compared."""
    feedback_detection_s: float | None = None
    """The same for answers that users find wrong; left out, too, until they have told of some."""
    evidence: Evidence | None = None
    """What the analysis remembers."""
    trail: tuple[Point, ...] = ()
    """How it went, oldest first; thinned out, for a report."""


class ModelStatus(Seen):
    observed_generation: int = 0
    """The generation of the spec this status speaks of."""
    conditions: Conditions = ()
    """Accepted, VariantsReady, RolloutComplete, Ready."""
    url: str = ""
    """Where clients reach the model."""
    revision: str = ""
    """The revision that serves."""
    variant: str = ""
    """The variant that serves."""
    gain: str = ""
    """How many times less than the source it takes, where that was measured."""
    replicas: int = 0
    """Replicas that exist."""
    ready_replicas: int = 0
    """Replicas that answer."""
    selector: str = ""
    """Label selector of the replicas, for the scale subresource."""
    sources: Annotated[
        tuple[SourceStatus, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uri"]}),
    ] = ()
    """What was found at each URI whose digest the spec does not pin; a changed file there needs a changed spec."""
    variants: Annotated[
        tuple[VariantStatus, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Every variant, whether it may serve, and why."""
    revisions: Annotated[
        tuple[RevisionStatus, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()
    """Revisions, newest first: the ones with traffic and the ones kept to go back to."""
    rollout: RolloutStatus | None = None
    """The latest rollout by steps."""


class ShadowMark(Seen):
    """Counters of one source when they were last read."""

    source: str
    """A process of a router."""
    copied: int
    """Copies it has sent."""
    agreed: int
    """Answers that agreed."""
    disagreed: int
    """Answers that did not."""


class ShadowStatus(Seen):
    """What came of the copies for one Model, since it is named."""

    model: str
    """The Model that gets them."""
    copied: int = 0
    """Requests of which it got a copy."""
    compared: int = 0
    """Of these: it answered, and the answers were compared."""
    agreed: int = 0
    """Of these: the answers agree."""
    message: str = ""
    """Why it gets none."""
    marks: tuple[ShadowMark, ...] = ()
    """By source, so that a router that starts anew is told from one that counted nothing."""


class EndpointStatus(Seen):
    observed_generation: int = 0
    """The generation of the spec this status speaks of."""
    conditions: Conditions = ()
    """Accepted, Ready."""
    url: str = ""
    """Where clients reach the endpoint."""
    experiment: ExperimentStatus | None = None
    """The experiment or bandit that goes on, or the last one of this spec."""
    shadows: tuple[ShadowStatus, ...] = ()
    """What came of the copies of its requests, by Model that gets them."""
