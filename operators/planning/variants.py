"""Which variant serves: resolve every variant's artifact, and choose the first one that can be served.

Variants are not measured yet, so their order in the spec is their order of preference. A variant is passed
over once it was refused (wrong digest, hostile file, engine cannot load it), until the spec changes; one still being
fetched is waited for, because serving the second choice first would make every start a double rollout.
"""

from __future__ import annotations

import dataclasses

from operators.api.model import Location, Model, Variant
from operators.api.plan import Fetch, FetchObserved, FetchState, Observation
from operators.api.status import SourceStatus, VariantStatus


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The variants with what is known of their artifacts."""

    fetches: frozenset[Fetch]
    sources: tuple[SourceStatus, ...]
    variants: tuple[VariantStatus, ...]
    chosen: Variant | None
    """None: none can be served, now or at all."""
    artifact: Fetch | None
    """The chosen variant's, once its digest is known and it is at hand."""


def resolve(model: Model, seen: Observation) -> Resolved:
    """Artifacts and states of all variants of ``model``, and the one to serve."""
    pinned = {source.uri: source.digest for source in model.status.sources}
    unchanged = model.status.observed_generation == model.metadata.generation
    refused: dict[tuple[str, str | None], str] = {
        (v.name, v.digest): v.reason for v in model.status.variants if unchanged and v.state == "Refused" and v.digest
    }
    fetches: set[Fetch] = set()
    sources: dict[str, SourceStatus] = {}
    states: list[VariantStatus] = []
    chosen: Variant | None = None
    artifact: Fetch | None = None
    for variant in model.spec.variants:
        if variant.passes:
            reason = "it has passes, and nothing runs passes yet; give its finished artifact as source instead"
            states.append(VariantStatus(name=variant.name, state="NotMade", reason=reason))
            continue
        location = variant.source or model.spec.source
        fetch = _fetch(location, pinned)
        fetches.add(fetch)
        found = seen.fetches.get(fetch, FetchObserved(FetchState.FETCHING))
        state = _state(variant.name, location, found, refused)
        if location.digest is None and (digest := fetch.digest or found.digest):
            # Pinned for as long as the spec speaks of this URI, also while the artifact is away or fetched again.
            sources[location.uri] = SourceStatus(uri=location.uri, digest=digest)
        if chosen is None and state.state != "Refused":
            chosen = variant
            if state.state == "Ready":
                artifact = Fetch(location.uri, found.digest)
                state = state.model_copy(update={"state": "Selected", "reason": "first variant that can be served"})
        states.append(state)
    if artifact is not None:
        fetches.add(artifact)
    return Resolved(frozenset(fetches), tuple(sources.values()), tuple(states), chosen, artifact)


def _fetch(location: Location, pinned: dict[str, str]) -> Fetch:
    return Fetch(location.uri, location.digest or pinned.get(location.uri))


def _state(
    name: str, location: Location, found: FetchObserved, refused: dict[tuple[str, str | None], str]
) -> VariantStatus:
    match found.state:
        case FetchState.REFUSED:
            return VariantStatus(name=name, state="Refused", reason=found.message)
        case FetchState.UNAVAILABLE:
            return VariantStatus(name=name, state="Preparing", reason=found.message)
        case FetchState.FETCHING:
            return VariantStatus(name=name, state="Preparing", reason=f"fetching {location.uri}")
        case FetchState.FETCHED if (name, found.digest) in refused:
            why = refused[name, found.digest]
            return VariantStatus(name=name, state="Refused", digest=found.digest, reason=why)
        case FetchState.FETCHED:
            why = "an earlier variant can be served"
            return VariantStatus(name=name, state="Ready", digest=found.digest, reason=why)
