"""Which variant serves: resolve every variant's artifact, and choose among those that can be served.

What has passes is made, measured and judged by one build of the whole Model; the best of what it accepts is chosen.
Until it is done the first variant that needs no build serves, unless something serves already, which then goes on:
going back to the plain form for the time of a build would be two rollouts for nothing.

A variant is passed over once it was refused (wrong digest, hostile file, gate, engine cannot load it), until the spec
changes; one still being fetched is waited for, because serving the second choice first would make every start a
double rollout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from operators.api.model import Location, Model, Pass, Variant
from operators.api.plan import Build, BuildObserved, BuildState, Fetch, FetchObserved, FetchState, Observation
from operators.api.status import BuildReport, Otherwise, SourceStatus, VariantStatus
from operators.planning import builds


@dataclasses.dataclass(frozen=True)
class Resolved:
    """The variants with what is known of their artifacts."""

    fetches: frozenset[Fetch]
    sources: tuple[SourceStatus, ...]
    variants: tuple[VariantStatus, ...]
    chosen: Variant | None
    """None: none can be served, now or at all, or what serves is to go on."""
    artifact: Fetch | None
    """The chosen variant's, once its digest is known and it is at hand."""
    otherwise: Otherwise | None = None
    """What replicas serve in its place where their processor is not one it was proven for."""
    build: Build | None = None
    building: str = ""
    """What the build is about; empty when there is none, or it has ended."""


@dataclasses.dataclass
class _Choice:
    """A variant that could serve."""

    variant: Variant
    fetch: Fetch
    state: VariantStatus
    reason: str
    for_cpu: tuple[str, ...] = ()
    """As in ``Otherwise``."""


def resolve(model: Model, seen: Observation) -> Resolved:
    """Artifacts and states of all variants of ``model``, and the one to serve."""
    pinned = {source.uri: source.digest for source in model.status.sources}
    unchanged = model.status.observed_generation == model.metadata.generation
    refused: dict[tuple[str, str | None], str] = {
        (v.name, v.digest): v.reason for v in model.status.variants if unchanged and v.state == "Refused" and v.digest
    }
    origin = _fetch(model.spec.source, pinned)
    digest = origin.digest or seen.fetches.get(origin, FetchObserved(FetchState.FETCHING)).digest
    build = None if seen.cannot_build else builds.wanted(model, digest)
    built = seen.builds.get(build, BuildObserved(BuildState.RUNNING, "starting")) if build else None
    is_building = built is not None and built.state in (BuildState.RUNNING, BuildState.UNAVAILABLE)
    fetches: set[Fetch] = set()
    sources: dict[str, SourceStatus] = {}
    states: list[VariantStatus] = []
    choices: list[_Choice] = []
    for variant in _expanded(model, built):
        if builds.is_built(model, variant):
            state, choice = _made(variant, _fetch(variant.source or model.spec.source, pinned), built, seen, refused)
            if build is None and not seen.cannot_build:
                fetches.add(origin)
        else:
            location = variant.source or model.spec.source
            fetch = _fetch(location, pinned)
            fetches.add(fetch)
            found = seen.fetches.get(fetch, FetchObserved(FetchState.FETCHING))
            state = _state(variant.name, location, found, refused)
            if location.digest is None and (known := fetch.digest or found.digest):
                # Pinned for as long as the spec speaks of this URI, also while the artifact is away or fetched again.
                sources[location.uri] = SourceStatus(uri=location.uri, digest=known)
            artifact = Fetch(location.uri, found.digest) if state.state == "Ready" else fetch
            why = "it serves until the others are made" if is_building else "first variant that can be served"
            choice = _Choice(variant, artifact, state, why)
            if built is not None and built.report is not None:
                choice = _measured(choice, built.report)
                state = choice.state
            choice = choice if state.state != "Refused" else None
        states.append(state)
        if choice is not None:
            choices.append(choice)
    if built is not None and built.report is not None:
        # The best of what the build accepted, then the next one should the engine refuse it.
        best = built.report.selected
        choices.sort(key=lambda one: (one.variant.name != best, -(one.state.gain or 1.0)))
    chosen = choices[0] if choices else None
    if chosen is not None and is_building:
        serving = next((one.variant for one in model.status.revisions if one.state == "Serving"), chosen.variant.name)
        chosen = chosen if serving == chosen.variant.name else None
    ready: Fetch | None = None
    if chosen is not None:
        fetches.add(chosen.fetch)
        if chosen.state.state == "Ready":
            ready = chosen.fetch
            selected = chosen.state.model_copy(update={"state": "Selected", "reason": chosen.reason})
            states = [selected if state.name == selected.name else state for state in states]
    return Resolved(
        frozenset(fetches),
        tuple(sources.values()),
        tuple(states),
        chosen.variant if chosen else None,
        ready,
        _otherwise(chosen, choices) if chosen else None,
        build,
        f"variants are being made: {built.message}" if built is not None and is_building else "",
    )


def _otherwise(chosen: _Choice, choices: Sequence[_Choice]) -> Otherwise | None:
    """The best choice that is as good on every processor, where the chosen one is not."""
    found = next((one for one in choices if not one.for_cpu and one.fetch.digest), None)
    if not chosen.for_cpu or found is None:
        return None
    assert found.fetch.digest is not None
    return Otherwise(for_cpu=chosen.for_cpu, variant=found.variant.name, uri=found.fetch.uri, digest=found.fetch.digest)


def _expanded(model: Model, built: BuildObserved | None) -> list[Variant]:
    """The variants of the spec; once the build is done, what it found in the place of a search, and forms for other
    engines behind those they are of.
    """
    result: list[Variant] = []
    report = built.report if built else None
    for variant in model.spec.variants:
        of = [one.name for one in report.variants if one.searched_by == variant.name] if report else []
        if variant.search is None:
            result.append(variant)
            result += [variant.model_copy(update={"name": name, "passes": _lowered(variant, name)}) for name in of]
        elif report:
            result += [variant.model_copy(update={"name": name}) for name in of]
        else:
            result.append(variant)
    return result


def _lowered(variant: Variant, name: str) -> tuple[Pass, ...]:
    """Passes of the form called ``name``, which the builder calls by the engine it is for."""
    engine = name.removeprefix(f"{variant.name}-")
    return (*variant.passes, Pass.model_validate({"lower": {"target": engine}}))


def _made(
    variant: Variant,
    given: Fetch,
    built: BuildObserved | None,
    seen: Observation,
    refused: dict[tuple[str, str | None], str],
) -> tuple[VariantStatus, _Choice | None]:
    """A variant that comes out of a build. ``given`` is what it was made of, and serves where nothing was changed."""
    name = variant.name
    if seen.cannot_build:
        return VariantStatus(name=name, state="NotMade", reason=seen.cannot_build), None
    if built is None or built.state in (BuildState.RUNNING, BuildState.UNAVAILABLE):
        return VariantStatus(
            name=name, state="Preparing", reason="it is being made" if built else "it waits for the source"
        ), None
    if built.report is None:
        return VariantStatus(name=name, state="Refused", reason=built.message), None
    found = next((one for one in built.report.variants if one.name == name), None)
    if found is None:
        where = f"; {built.report.page} tells of it" if built.report.page else ""
        return VariantStatus(name=name, state="Refused", reason=f"the build's summary does not tell of it{where}"), None
    if not found.accepted:
        return found.status("Refused", found.reason), None
    fetch = Fetch(found.uri, found.digest) if found.uri else given
    found = found.model_copy(update={"digest": fetch.digest})
    if (name, found.digest) in refused:
        return found.status("Refused", refused[name, found.digest]), None
    there = seen.fetches.get(fetch, FetchObserved(FetchState.FETCHING))
    match there.state:
        case FetchState.REFUSED:
            return found.status("Refused", there.message), None
        case FetchState.FETCHED:
            state = found.status("Ready", found.reason)
        case _ if built.report.selected == name:
            state = found.status("Preparing", there.message or f"fetching {found.uri}")
        case _:
            # Fetched when it is chosen, and not before.
            state = found.status("Ready", found.reason)
            preparing = state.model_copy(update={"state": "Preparing"})
            return state, _Choice(variant, fetch, preparing, found.reason, found.for_cpu)
    return state, _Choice(variant, fetch, state, found.reason, found.for_cpu)


def _measured(choice: _Choice, report: BuildReport) -> _Choice:
    """The choice with what the build measured of it."""
    found = next((one for one in report.variants if one.name == choice.variant.name), None)
    if found is None or choice.state.state not in ("Ready", "Preparing"):
        return choice
    state = found.status("Ready", choice.state.reason).model_copy(
        update={"state": choice.state.state, "digest": choice.state.digest}
    )
    return dataclasses.replace(choice, state=state, reason=found.reason, for_cpu=found.for_cpu)


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
