"""Status of a Model and an Endpoint: what people read, and what the planner remembers between ticks."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from operators.api.base import Condition, Seen
from operators.api.contract import Contract
from operators.api.engine import Batching, Limits
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

    @property
    def settings(self) -> str:
        """What its serving processes are told, as one JSON document; empty where nothing is said."""
        said = {"batching": self.batching, "limits": self.limits}
        document = {key: value.to_dict() for key, value in said.items() if value is not None and value.to_dict()}
        return json.dumps(document, sort_keys=True) if document else ""


class VariantStatus(Seen):
    name: str
    """Name of the variant."""
    state: Literal["Selected", "Ready", "Preparing", "NotMade", "Refused"]
    """Selected serves; Ready could; Preparing is being fetched; NotMade has passes nothing runs yet; Refused cannot
    serve.
    """
    digest: str | None = None
    """Digest of its artifact."""
    reason: str = ""
    """Why it has this state, in one sentence."""


class RevisionStatus(Seen):
    name: str
    """Name of the revision: a hash of everything that makes it."""
    variant: str
    """Variant that serves it."""
    recipe: Recipe
    """How it is run."""
    state: Literal["Serving", "Starting", "Draining", "Failed", "Retired"]
    """Serving gets traffic; Starting will; Draining finishes what it began; Failed never got ready; Retired is kept
    to go back to.
    """
    weight: int = 0
    """Traffic that reaches it as the router reports, in 0.01 %."""
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


class EndpointStatus(Seen):
    observed_generation: int = 0
    """The generation of the spec this status speaks of."""
    conditions: Conditions = ()
    """Accepted, Ready."""
    url: str = ""
    """Where clients reach the endpoint."""
