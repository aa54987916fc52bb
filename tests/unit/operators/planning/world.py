"""A world small enough to reason about: it does what plans say, as late or as early as a test wants."""

from __future__ import annotations

import dataclasses
import datetime

from operators.api.model import Model
from operators.api.plan import (
    Arm,
    BuildObserved,
    BuildState,
    Fetch,
    FetchObserved,
    FetchState,
    Observation,
    Plan,
    RouteObserved,
    WorkloadObserved,
)
from operators.api.status import ModelStatus
from operators.planning import builds, plan, runtimes

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
RUNTIMES = runtimes.builtin("penstock-serve:test", "python")


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def model(letter: str = "a", generation: int = 1, **spec: object) -> Model:
    source = {"uri": f"s3://models/{letter}.onnx", "digest": digest(letter)}
    return Model.model_validate(
        {"metadata": {"name": "digits", "generation": generation}, "spec": {"source": source, **spec}}
    )


_BUILDING = BuildObserved(BuildState.RUNNING, "int8: quantize (40%)")


@dataclasses.dataclass
class World:
    """Holds what exists; ``tick`` plans and acts, the other methods are what happens outside."""

    model: Model
    now: datetime.datetime = START
    fetched: dict[str, FetchObserved] = dataclasses.field(default_factory=dict)
    """By URI; everything not listed is there."""
    workloads: dict[str, WorkloadObserved] = dataclasses.field(default_factory=dict)
    asked: tuple[Arm, ...] = ()
    route: RouteObserved | None = None
    built: BuildObserved = _BUILDING
    """What every build has come to."""
    cannot_build: str = ""
    cannot_deploy_as: dict[str, str] = dataclasses.field(default_factory=dict)

    def observation(self, plan: Plan | None = None) -> Observation:
        locations = [v.source or self.model.spec.source for v in self.model.spec.variants]
        pinned = {s.uri: s.digest for s in self.model.status.sources}
        fetches = {}
        for location in locations:
            found = self.fetched.get(location.uri, FetchObserved(FetchState.FETCHED, digest(location.uri[12])))
            fetches[Fetch(location.uri, location.digest or pinned.get(location.uri))] = found
        for revision in self.model.status.revisions:
            uri, known = revision.recipe.uri, revision.recipe.digest
            fetches.setdefault(Fetch(uri, known), self.fetched.get(uri, FetchObserved(FetchState.FETCHED, known)))
        for one in self.built.report.variants if self.built.report else ():
            fetches[Fetch(one.uri, one.digest)] = FetchObserved(FetchState.FETCHED, one.digest)
        build = builds.wanted(self.model, digest(self.model.spec.source.uri[12]))
        return Observation(
            fetches,
            dict(self.workloads),
            self.route,
            "http://router/v2/models/digits",
            builds={build: self.built} if build else {},
            cannot_build=self.cannot_build,
            cannot_deploy_as=self.cannot_deploy_as,
        )

    def tick(self) -> Plan:
        decided = plan.model(self.model, RUNTIMES, self.observation(), self.now)
        assert isinstance(decided.status, ModelStatus)
        assert decided.route is not None
        self.model = self.model.model_copy(update={"status": decided.status})
        wanted = {w.name: w for w in decided.workloads}
        self.workloads = {
            name: dataclasses.replace(
                self.workloads.get(name, WorkloadObserved(0, 0)), wanted=wanted[name].replicas or 0
            )
            for name in wanted
        }
        self.asked = decided.route.arms  # type: ignore[union-attr]
        return decided

    def settle(self) -> Plan:
        """Let everything that can succeed succeed, until two plans are the same."""
        before: Plan | None = None
        for _ in range(20):
            for name, seen in self.workloads.items():
                if not seen.refused:
                    self.workloads[name] = dataclasses.replace(seen, ready=seen.wanted, reason="", message="")
            self.report()
            decided = self.tick()
            if decided == before:
                return decided
            before = decided
        raise AssertionError("the plan never settles")

    def report(self, in_flight: dict[str, int] | None = None) -> None:
        """The router says that it does what was asked."""
        self.route = RouteObserved(self.asked, in_flight or {})

    def refuse(self, name: str, message: str) -> None:
        self.workloads[name] = dataclasses.replace(self.workloads[name], ready=0, message=message, refused=True)

    def edit(self, changed: Model) -> None:
        generation = self.model.metadata.generation + 1
        metadata = self.model.metadata.model_copy(update={"generation": generation})
        self.model = changed.model_copy(update={"status": self.model.status, "metadata": metadata})

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.model.status.conditions if c.type == type_)
        return found.status, found.reason

    def message(self, type_: str) -> str:
        return next(c.message for c in self.model.status.conditions if c.type == type_)

    def states(self) -> list[tuple[str, str]]:
        """(artifact letter, state), newest first."""
        return [(r.recipe.digest[7], r.state) for r in self.model.status.revisions]
