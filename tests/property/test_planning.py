"""Whatever happens in whatever order: traffic only ever goes to replicas that exist, and everything settles."""

from __future__ import annotations

import dataclasses
import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.api.plan import FetchObserved, FetchState
from tests.unit.operators.planning.world import World, digest, model

LETTERS = "abcd"
edits = st.tuples(st.just("edit"), st.sampled_from(LETTERS), st.integers(0, 3))
outside = st.tuples(
    st.sampled_from(["ready", "die", "refuse", "report", "report-busy", "unfetched", "fetched", "wait"]),
    st.integers(0, 3),
    st.just(0),
)


def happen(world: World, event: tuple[str, str | int, int]) -> None:
    what, argument, replicas = event
    names = sorted(world.workloads)
    match what, argument:
        case "edit", str(letter):
            world.edit(model(letter, replicas=replicas, historyLimit=2))
        case "ready", int(index) if names:
            name = names[index % len(names)]
            if not world.workloads[name].refused:
                world.workloads[name] = dataclasses.replace(world.workloads[name], ready=world.workloads[name].wanted)
        case "die", int(index) if names:
            name = names[index % len(names)]
            world.workloads[name] = dataclasses.replace(world.workloads[name], ready=0)
        case "refuse", int(index) if names:
            world.refuse(names[index % len(names)], "it is broken")
        case "report", _:
            world.report()
        case "report-busy", int(index) if names:
            world.report({names[index % len(names)]: 1})
        case "unfetched", int(index):
            letter = LETTERS[index]
            world.fetched[f"s3://models/{letter}.onnx"] = FetchObserved(FetchState.UNAVAILABLE, message="away")
        case "fetched", int(index):
            world.fetched.pop(f"s3://models/{LETTERS[index]}.onnx", None)
        case "wait", _:
            world.now += datetime.timedelta(seconds=90)


@settings(max_examples=300)
@given(st.lists(st.one_of(edits, outside), max_size=25))
def test_every_history_keeps_traffic_on_what_exists_and_ends_in_the_declared_state(
    events: list[tuple[str, str | int, int]],
) -> None:
    world = World(model("a"))
    world.settle()
    for event in events:
        happen(world, event)
        # The data plane may act on any older plan, so what it reports must still be running.
        reported = {arm.workload for arm in world.route.arms} if world.route else set()
        before = set(world.workloads)
        decided = world.tick()
        running = {w.name for w in decided.workloads}
        assert reported & before <= running, "a workload that gets traffic is never stopped"
        assert {arm.workload for arm in world.asked} <= running
        answered = any(w in world.workloads and world.workloads[w].ready for w in reported)
        if world.model.spec.replicas and decided.reason.endswith("all traffic moves to it"):
            assert not answered or world.condition("Ready")[0] == "True", "a change of revision is no outage"
        states = [r.state for r in world.model.status.revisions]
        assert states.count("Serving") <= 1
        assert states.count("Retired") <= 2
        assert len({r.name for r in world.model.status.revisions}) == len(states)

    world.fetched.clear()
    world.edit(model("d", replicas=1, historyLimit=2))
    for name, seen in world.workloads.items():
        world.workloads[name] = dataclasses.replace(seen, refused=False)
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("RolloutComplete") == ("True", "Complete")
    serving = next(r for r in world.model.status.revisions if r.state == "Serving")
    assert serving.recipe.digest == digest("d")
    assert len(world.workloads) == 1
