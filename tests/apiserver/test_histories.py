"""Generated histories of rollouts, through the real operator and store: edits, commands, pods that fail, routers and
metrics that say nothing, and operators that die at a write. ``test_rollout_machine`` plays more of them, without a
cluster.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from operators.api.commands import ABORT, PROMOTE, RETRY
from operators.api.model import ModelSpec
from operators.planning import capacity
from tests.apiserver import stage
from tests.apiserver.conftest import model
from tests.apiserver.stage import Journal, Moment, Stage, World
from tests.rig.control_plane import ControlPlane

STEPS = [{"weight": 5, "for": "1m"}, {"weight": 40}, {"weight": 100, "for": "30s"}]
ANALYSIS = {"maxErrorRateIncrease": 0.05, "deadline": "20m"}
MOST_ROUNDS = 60

moments: st.SearchStrategy[Moment] = st.sampled_from(["before", "after", "unanswered"])
happenings = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from("bcd")),
    st.tuples(st.just("scale"), st.integers(1, 4)),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("command"), st.sampled_from([PROMOTE, ABORT, RETRY])),
    st.tuples(st.just("unready"), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("obey"), st.sampled_from([10.0, 60.0, 300.0])),
    st.tuples(st.just("time"), st.sampled_from([5.0, 300.0])),
    st.tuples(st.just("measured"), st.booleans()),
    st.tuples(st.just("failing"), st.sampled_from([0.0, 0.2])),
    st.tuples(st.just("kill"), st.integers(0, 4), moments),
)


@dataclasses.dataclass
class Play:
    """One history of one Model."""

    stage: Stage
    world: World
    rollout: dict[str, Any]
    replicas: int
    letter: str = "a"
    journal: Journal = dataclasses.field(default_factory=Journal)

    async def apply(self) -> None:
        await self.world.apply(model(digest="sha256:" + self.letter * 64, replicas=self.replicas, rollout=self.rollout))

    async def happen(self, what: str, *how: Any) -> None:
        """One thing happens, and the operator sees it."""
        world = self.world
        match what, *how:
            case "edit", letter:
                self.letter = letter
                await self.apply()
            case "scale", replicas:
                self.replicas = replicas
                await self.apply()
            case "pause", is_paused:
                self.rollout["paused"] = is_paused
                await self.apply()
            case "command", verb:
                last = (await world.model())["status"].get("rollout")
                if last is not None:
                    said: dict[str, str | None] = {PROMOTE: None, ABORT: None, RETRY: None}
                    await world.annotate(said | {verb: f"{last['revision']}@{last['began']}"})
            case "unready", which, left:
                found = sorted((await world.deployments()).items())
                if found:
                    name, deployment = found[which % len(found)]
                    await world.ready(name, min(left, deployment["spec"]["replicas"]))
            case "obey", seconds:
                await world.obey(seconds)
            case "time", seconds:
                await world.flow(seconds)
            case "measured", is_measured:
                world.measured = is_measured
            case "failing", share:
                world.failing = share
            case "kill", number, moment:
                self.journal.at, self.journal.moment = len(self.journal.tried) + number, moment
                self.journal.fired = False
        await self.settle()

    async def settle(self) -> bool:
        """The operator sees what is, pass by pass, and every pass keeps its promises."""
        before = await self.world.deployments()

        async def passed() -> None:
            nonlocal before
            before = await self.check(before)

        return await stage.settle(self.stage, self.journal, self.world, passed)

    async def check(self, before: dict[str, Any]) -> dict[str, Any]:
        """What a pass did to the Deployments that were there ``before``; gives those that are there now."""
        world, after, asked = self.world, await self.world.deployments(), await self.world.asked()
        ready = {name: _ready(one) for name, one in before.items()}
        planned = {name: one["spec"]["replicas"] for name, one in after.items()}
        revisions = (await world.model()).get("status", {}).get("revisions", ())
        stable = {revision["name"] for revision in revisions if revision["state"] == "Serving"}
        assert len(asked) <= 2
        for arm in asked:
            is_new = arm not in world.asked_before and arm.revision not in stable
            assert not is_new or not arm.weight or ready.get(arm.workload), f"{arm} is not ready"
        world.asked_before = asked
        carrying = {arm.workload for arm in world.routed} & ready.keys()
        assert carrying <= planned.keys(), "what has traffic is never removed"
        spec = ModelSpec.model_validate((await world.model())["spec"])
        assert spec.rollout is not None
        within = capacity.bounds(spec.rollout, spec.replicas)
        able = {name for name, number in planned.items() if number} | carrying
        kept = sum(min(ready.get(name, 0), number) for name, number in planned.items())
        had = sum(number for name, number in ready.items() if name in able)
        assert kept >= min(within.floor, had), f"{kept} ready replicas of {had} are below the floor {within.floor}"
        existing = sum(one["spec"]["replicas"] for one in before.values())
        assert sum(planned.values()) <= max(within.room, existing), "replicas stay within the surge"
        for name, one in after.items():
            if _ready(one) > planned[name]:
                await world.ready(name, planned[name])
        return await world.deployments()

    async def end(self) -> None:
        """The world calms down, and the rollout ends."""
        self.rollout["paused"], self.world.measured, self.world.failing = False, True, 0.0
        await self.apply()
        for _ in range(MOST_ROUNDS):
            wrote = await self.settle()
            status = (await self.world.model())["status"]
            conditions = {each["type"]: each for each in status["conditions"]}
            if not wrote and conditions["RolloutComplete"]["reason"] in ("Complete", "RolledBack"):
                break
            await self.world.obey(30)
        else:
            raise AssertionError(f"it never ends: {conditions['RolloutComplete']['message']}")
        assert conditions["Ready"]["status"] == "True"
        (serving,) = (revision for revision in status["revisions"] if revision["state"] == "Serving")
        if conditions["RolloutComplete"]["reason"] == "Complete":
            assert serving["recipe"]["digest"] == "sha256:" + self.letter * 64
        existing = {name: one["spec"]["replicas"] for name, one in (await self.world.deployments()).items()}
        assert existing == {f"{stage.NAME}-{serving['name']}-default": self.replicas}


def _ready(deployment: dict[str, Any]) -> int:
    number: int = deployment["status"].get("readyReplicas", 0)
    return number


@pytest.mark.timeout(600)
@settings(max_examples=20, derandomize=True, database=None, phases=[Phase.generate])
@given(
    replicas=st.integers(1, 4),
    surge=st.sampled_from([0, 1, "100%"]),
    unavailable=st.sampled_from([0, 1]),
    steps=st.integers(1, 3),
    is_analysed=st.booleans(),
    history=st.lists(happenings, min_size=5, max_size=12),
)
def test_no_history_of_a_rollout_breaks_its_promises_on_an_api_server(
    unattended: ControlPlane,
    replicas: int,
    surge: int | str,
    unavailable: int,
    steps: int,
    is_analysed: bool,
    history: list[tuple[Any, ...]],
) -> None:
    rollout: dict[str, Any] = {"steps": STEPS[:steps], "maxSurge": surge, "maxUnavailable": unavailable}
    if is_analysed:
        rollout["analysis"] = ANALYSIS

    async def played() -> None:
        async with stage.opened(unattended) as opened:
            play = Play(opened, await opened.world(), rollout, replicas)
            await play.apply()
            await stage.play(opened, play.journal, play.world, [""], MOST_ROUNDS)
            for happening in history:
                await play.happen(*happening)
            await play.end()

    asyncio.run(played())
