"""Whatever happens to a rollout in whatever order: nobody is sent to what is not ready, capacity stays above its floor,
the router is never asked for a third arm, and once the world calms down the rollout ends and nothing is written.
"""

from __future__ import annotations

import dataclasses
import datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from operators.api.commands import ABORT, PROMOTE, RETRY
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Arm, Counts, FetchObserved, FetchState, Plan, RouteObserved
from operators.api.status import RevisionStatus
from operators.planning import capacity, names
from tests.unit.operators.planning.world import World, model

LETTERS = "abcd"
STEPS = [{"weight": 5, "for": "1m"}, {"weight": 40}, {"weight": 100, "for": "30s"}]
ANALYSIS = {"maxErrorRateIncrease": 0.05, "deadline": "20m"}
RATE = 2000
"""Requests a second."""


class Rollouts(RuleBasedStateMachine):
    """One Model in a world that follows late, or not at all."""

    @initialize(
        replicas=st.integers(1, 5),
        surge=st.sampled_from([0, 1, "25%", "100%"]),
        unavailable=st.sampled_from([0, 1, "50%"]),
        steps=st.integers(1, 3),
        is_analysed=st.booleans(),
    )
    def begin(self, replicas: int, surge: int | str, unavailable: int | str, steps: int, is_analysed: bool) -> None:
        self.replicas = replicas
        self.rollout: dict[str, object] = {"steps": STEPS[:steps], "maxSurge": surge, "maxUnavailable": unavailable}
        if is_analysed:
            self.rollout["analysis"] = ANALYSIS
        self.world = World(self.asked("a"))
        self.counted: dict[str, Counts] = {}
        self.measured = True
        self.failing = 0.0
        self.world.settle()
        self.routed: tuple[Arm, ...] = self.world.asked
        self.busy: dict[str, int] = {}
        self.decided: Plan | None = None

    def asked(self, letter: str) -> Model:
        return model(letter, replicas=self.replicas, rollout=self.rollout, historyLimit=2)

    def edited(self, letter: str) -> None:
        annotations = self.world.model.metadata.annotations
        self.world.edit(self.asked(letter))
        metadata = self.world.model.metadata.model_copy(update={"annotations": annotations})
        self.world.model = self.world.model.model_copy(update={"metadata": metadata})

    # What happens.

    @rule(letter=st.sampled_from(LETTERS))
    def edit(self, letter: str) -> None:
        self.edited(letter)
        self.tick()

    @rule(replicas=st.integers(1, 5))
    def scale(self, replicas: int) -> None:
        self.replicas = replicas
        self.edited(self.letter())
        self.tick()

    @rule(is_paused=st.booleans())
    def pause(self, is_paused: bool) -> None:
        self.rollout["paused"] = is_paused
        self.edited(self.letter())
        self.tick()

    @rule(verb=st.sampled_from([PROMOTE, ABORT, RETRY]), is_exact=st.booleans())
    def command(self, verb: str, is_exact: bool) -> None:
        last = self.world.model.status.rollout
        if last is not None:
            annotations = {verb: f"{last.revision}@{last.began}" if is_exact else last.revision}
            metadata = self.world.model.metadata.model_copy(update={"annotations": annotations})
            self.world.model = self.world.model.model_copy(update={"metadata": metadata})
        self.tick()

    @rule(which=st.integers(0, 3), missing=st.integers(0, 5))
    def readiness(self, which: int, missing: int) -> None:
        workloads = sorted(self.world.workloads)
        if workloads:
            name = workloads[which % len(workloads)]
            seen = self.world.workloads[name]
            self.world.workloads[name] = dataclasses.replace(seen, ready=max(0, seen.wanted - missing))
        self.tick()

    @rule(is_busy=st.booleans())
    def router(self, is_busy: bool) -> None:
        self.route(is_busy)
        self.tick()

    @rule()
    def router_says_nothing(self) -> None:
        self.world.route = None
        self.tick()

    @rule(seconds=st.sampled_from([1, 5, 40, 300, 1300]))
    def time(self, seconds: int) -> None:
        self.flow(seconds)
        self.tick()

    @rule(is_measured=st.booleans())
    def metrics(self, is_measured: bool) -> None:
        self.measured = is_measured
        self.tick()

    @rule(share=st.sampled_from([0.0, 0.2]))
    def failures(self, share: float) -> None:
        self.failing = share
        self.tick()

    @rule(letter=st.sampled_from(LETTERS), is_there=st.booleans())
    def storage(self, letter: str, is_there: bool) -> None:
        uri = f"s3://models/{letter}.onnx"
        self.world.fetched.pop(uri, None)
        if not is_there:
            self.world.fetched[uri] = FetchObserved(FetchState.UNAVAILABLE, message="away")
        self.tick()

    @rule(rounds=st.integers(1, 10), seconds=st.sampled_from([5, 20, 60]))
    def let_all_go_well(self, rounds: int, seconds: int) -> None:
        for _ in range(rounds):
            self.obey(seconds)

    # How the world works.

    def obey(self, seconds: int) -> None:
        """Everything that was wanted is there, and time goes by."""
        for name, seen in self.world.workloads.items():
            self.world.workloads[name] = dataclasses.replace(seen, ready=seen.wanted)
        self.route(is_busy=False)
        self.flow(seconds)
        self.tick()

    def letter(self) -> str:
        return self.world.model.spec.source.uri[12]

    def route(self, is_busy: bool) -> None:
        """The router does what was asked once it knows a server of every arm, or has nothing else to send to."""
        ready = {name for name, seen in self.world.workloads.items() if seen.ready}
        new, old = ({arm.workload for arm in arms} for arms in (self.world.asked, self.routed))
        if new <= ready or not old & ready:
            self.busy = {name: 1 for name in old - new if is_busy}
            self.routed = self.world.asked
        elif not is_busy:
            self.busy = {}
        self.report()

    def report(self) -> None:
        counts = {"router": dict(self.counted)} if self.measured else {}
        clock_s = self.world.now.timestamp()
        busy = {arm.workload: 1 for arm in self.routed} | self.busy
        self.world.route = RouteObserved(self.routed, busy, counts=counts, read_s={"router": clock_s})

    def flow(self, seconds: int) -> None:
        self.world.now += datetime.timedelta(seconds=seconds)
        candidate = self.of("Candidate")
        for arm in self.routed:
            before = self.counted.get(arm.workload, Counts())
            answered = seconds * RATE * arm.weight // FULL_WEIGHT
            is_bad = candidate is not None and arm.revision == candidate.name
            failed = round(answered * self.failing) if is_bad else 0
            self.counted[arm.workload] = Counts(before.answered + answered, before.failed + failed)
        if self.world.route is not None:
            self.report()

    def of(self, *states: str) -> RevisionStatus | None:
        return next((r for r in self.world.model.status.revisions if r.state in states), None)

    def tick(self) -> None:
        world = self.world
        within = capacity.bounds(world.model.spec.rollout, world.model.spec.replicas)  # type: ignore[arg-type]
        ready = {name: seen.ready for name, seen in world.workloads.items()}
        existing = sum(seen.wanted for seen in world.workloads.values())
        self.decided = world.tick()
        planned = {workload.name: workload.replicas or 0 for workload in self.decided.workloads}
        for name, seen in world.workloads.items():
            world.workloads[name] = dataclasses.replace(seen, ready=min(seen.ready, seen.wanted))

        assert len(world.asked) <= 2, "the router holds two arms"
        stable = self.of("Serving")
        for arm in world.asked:
            if stable is None or arm.revision != stable.name:
                assert ready.get(arm.workload), f"{arm} is not ready"
        carrying = {arm.workload for arm in self.routed} & ready.keys()
        assert carrying <= planned.keys(), "what has traffic is never removed"
        able = {name for name, number in planned.items() if number} | carrying
        kept = sum(min(ready.get(name, 0), number) for name, number in planned.items())
        had = sum(number for name, number in ready.items() if name in able)
        assert kept >= min(within.floor, had), f"{kept} ready replicas of {had} are below the floor {within.floor}"
        assert sum(planned.values()) <= max(within.room, existing), "replicas stay within the surge"

    @invariant()
    def states_are_sane(self) -> None:
        if not hasattr(self, "world"):
            return
        revisions = self.world.model.status.revisions
        states = [revision.state for revision in revisions]
        assert states.count("Serving") == 1, "what served once is always replaced, never removed"
        assert states.count("Candidate") <= 1
        assert len({revision.name for revision in revisions}) == len(revisions)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.fetched.clear()
        self.rollout["paused"], self.measured, self.failing = False, True, 0.0
        self.edited(self.letter())
        before = None
        for _ in range(400):
            self.obey(10)
            if self.decided == before and world.condition("RolloutComplete")[1] in ("Complete", "RolledBack"):
                break
            before = self.decided
        else:
            raise AssertionError(f"it never ends: {world.message('RolloutComplete')}")
        assert world.condition("Ready")[0] == "True"
        serving = self.of("Serving")
        assert serving is not None
        workload = names.workload("digits", serving.name, serving.variant)
        assert {name: seen.wanted for name, seen in world.workloads.items()} == {workload: self.replicas}
        if world.condition("RolloutComplete")[1] == "Complete":
            assert serving.recipe.digest[7] == self.letter()


Rollouts.TestCase.settings = settings(max_examples=1000, stateful_step_count=30, deadline=None)
test_no_history_of_a_rollout_breaks_its_promises = Rollouts.TestCase
