from __future__ import annotations

import dataclasses
import datetime
import json

from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Counts, FetchObserved, FetchState, Mirror, Route, RouteObserved
from operators.api.status import ModelStatus, RevisionStatus, RolloutStatus
from operators.planning import names, plan
from tests.unit.operators.planning.world import RUNTIMES, World, model

STEPS = [{"weight": 5, "for": "2m"}, {"weight": 50, "for": "5m"}]


def stepped(letter: str, annotations: dict[str, str] | None = None, replicas: int = 4, **rollout: object) -> Model:
    found = model(letter, replicas=replicas, rollout={"steps": STEPS, **rollout})
    return found.model_copy(update={"metadata": found.metadata.model_copy(update={"annotations": annotations or {}})})


def rolling(**rollout: object) -> World:
    """Revision a serves, revision b is asked for."""
    world = World(stepped("a", **rollout))  # type: ignore[arg-type]
    world.settle()
    world.edit(stepped("b", **rollout))  # type: ignore[arg-type]
    world.tick()
    return world


def revision(world: World, letter: str) -> RevisionStatus:
    return next(r for r in world.model.status.revisions if r.recipe.digest[7] == letter)


def workload(world: World, letter: str) -> str:
    found = revision(world, letter)
    return names.workload("digits", found.name, found.variant)


def of(world: World) -> RolloutStatus:
    assert world.model.status.rollout is not None
    return world.model.status.rollout


def ready(world: World, letter: str, number: int | None = None) -> None:
    name = workload(world, letter)
    seen = world.workloads[name]
    world.workloads[name] = dataclasses.replace(seen, ready=seen.wanted if number is None else number)


def wait(world: World, seconds: float) -> None:
    world.now += datetime.timedelta(seconds=seconds)
    world.tick()


def shares(world: World) -> dict[str, int]:
    letters = {workload(world, r.recipe.digest[7]): r.recipe.digest[7] for r in world.model.status.revisions}
    return {letters[arm.workload]: arm.weight for arm in world.asked}


def replicas(world: World) -> dict[str, int]:
    return {
        r.recipe.digest[7]: world.workloads[n].wanted
        for r in world.model.status.revisions
        if (n := workload(world, r.recipe.digest[7])) in world.workloads
    }


def moved(world: World) -> None:
    """The router reports what was asked, and the planner sees it."""
    world.report()
    world.tick()


def at_first_step(**rollout: object) -> World:
    world = rolling(**rollout)
    ready(world, "b")
    world.tick()
    moved(world)
    assert shares(world) == {"a": 9500, "b": 500}
    return world


def command(world: World, **said: str) -> None:
    annotations = {f"penstock.dev/{verb}": value for verb, value in said.items()}
    metadata = world.model.metadata.model_copy(update={"annotations": annotations})
    world.model = world.model.model_copy(update={"metadata": metadata})
    world.tick()


def test_a_candidate_gets_its_first_share_only_when_its_replicas_are_ready() -> None:
    world = rolling()
    assert world.states() == [("b", "Starting"), ("a", "Serving")]
    assert (shares(world), replicas(world)) == ({"a": FULL_WEIGHT}, {"a": 4, "b": 1})
    ready(world, "b")
    world.tick()
    assert world.states() == [("b", "Candidate"), ("a", "Serving")]
    assert shares(world) == {"a": 9500, "b": 500}
    assert world.condition("RolloutComplete") == ("False", "Progressing")
    assert world.condition("Ready") == ("True", "Serving")


def test_a_step_ends_when_its_time_has_passed_since_the_router_reported_its_share() -> None:
    world = rolling()
    ready(world, "b")
    world.tick()
    wait(world, 600)
    assert (of(world).step, of(world).reached) == (0, False)
    moved(world)
    assert (of(world).step, of(world).reached) == (0, True)
    assert of(world).next == "step 2 of 2, 50 % of the traffic"
    assert of(world).next_at == "2026-01-01T00:12:00Z"
    wait(world, 119)
    assert of(world).step == 0
    wait(world, 1)
    assert (of(world).step, replicas(world), shares(world)) == (1, {"a": 4, "b": 2}, {"a": 7500, "b": 2500})
    ready(world, "b")
    world.tick()
    assert shares(world) == {"a": 5000, "b": 5000}


def test_after_the_last_step_all_replicas_get_ready_and_all_traffic_moves() -> None:
    world = at_first_step()
    for _ in range(2):
        wait(world, 600)
        ready(world, "b")
        world.tick()
        moved(world)
    assert world.states() == [("b", "Serving"), ("a", "Retired")]
    assert (shares(world), replicas(world)) == ({"b": FULL_WEIGHT}, {"b": 4})
    assert of(world).state == "Promoted"
    assert of(world).message.endswith("stood all steps (2) and is promoted: all traffic moves to it")
    assert world.condition("RolloutComplete") == ("True", "Complete")


def test_the_first_revision_needs_no_steps() -> None:
    world = World(stepped("a"))
    world.settle()
    assert world.states() == [("a", "Serving")]
    assert world.model.status.rollout is None


def test_a_candidate_that_is_not_ready_any_more_gets_nothing_until_it_is() -> None:
    world = at_first_step()
    ready(world, "b", 0)
    world.tick()
    assert shares(world) == {"a": FULL_WEIGHT}
    moved(world)
    assert (of(world).reached, world.states()[0]) == (False, ("b", "Candidate"))
    ready(world, "b")
    world.tick()
    assert shares(world) == {"a": 9500, "b": 500}


def test_a_paused_rollout_stays_in_its_step_and_goes_on_when_it_is_not() -> None:
    world = at_first_step()
    world.edit(stepped("b", paused=True))
    wait(world, 600)
    assert (of(world).step, of(world).state) == (0, "Paused")
    assert of(world).message.endswith("has 5 % of the traffic, step 1 of 2; it waits: spec.rollout.paused is set")
    before = world.tick()
    assert world.tick() == before
    world.edit(stepped("b"))
    world.tick()
    assert of(world).step == 1


def test_a_pause_by_hand_holds_what_rolls_out_and_what_is_still_to_begin_until_it_is_taken_back() -> None:
    held = "it was paused by hand; `penstock rollout resume digits` lets it go on"
    world = World(stepped("a", {"penstock.dev/paused": "2026-01-02T03:00:00Z"}))
    world.settle()
    complete = next(c for c in world.model.status.conditions if c.type == "RolloutComplete")
    assert (complete.status, complete.reason) == ("True", "Complete")
    assert complete.message.endswith(f"has all traffic; the next rollout will wait: {held}")
    world.edit(stepped("b"))
    world.tick()
    for _ in range(3):
        ready(world, "b")
        wait(world, 600)
    assert (shares(world), of(world).state) == ({"a": FULL_WEIGHT}, "Paused")
    assert of(world).message.endswith(f"it waits: {held}")
    command(world)
    world.tick()
    ready(world, "b")
    world.tick()
    assert (shares(world), of(world).state) == ({"a": 9500, "b": 500}, "Progressing")


def test_a_rollout_that_is_paused_after_its_last_step_is_not_promoted() -> None:
    world = at_first_step()
    while of(world).step < 2:
        ready(world, "b")
        moved(world)
        wait(world, 300)
        world.tick()
    world.edit(stepped("b", paused=True))
    for _ in range(3):
        wait(world, 60)
        ready(world, "b")
        moved(world)
    assert (world.states()[0], of(world).state) == (("b", "Candidate"), "Paused")
    world.edit(stepped("b"))
    world.tick()
    assert world.states()[0] == ("b", "Serving")


def test_promotion_by_hand_leaves_the_steps_out_and_waits_for_all_replicas() -> None:
    world = at_first_step()
    command(world, promote=revision(world, "b").name)
    assert (of(world).step, replicas(world)) == (2, {"a": 4, "b": 4})
    assert world.states()[0] == ("b", "Candidate")
    ready(world, "b")
    world.tick()
    assert world.states() == [("b", "Serving"), ("a", "Draining")]
    assert of(world).message.endswith("is promoted by hand: all traffic moves to it")


def test_a_command_for_an_earlier_rollout_of_the_same_revision_does_nothing() -> None:
    world = at_first_step()
    command(world, promote=f"{revision(world, 'b').name}@2025-01-01T00:00:00Z")
    assert of(world).step == 0


def test_an_abort_moves_traffic_first_and_the_replicas_go_when_the_router_is_rid_of_them() -> None:
    world = at_first_step()
    name = revision(world, "b").name
    command(world, abort=f"{name}@{of(world).began}")
    assert world.states() == [("b", "RolledBack"), ("a", "Serving")]
    assert (shares(world), replicas(world)) == ({"a": FULL_WEIGHT}, {"a": 4, "b": 1})
    world.route = RouteObserved(world.asked, {workload(world, "b"): 1})
    world.tick()
    assert replicas(world) == {"a": 4, "b": 1}
    moved(world)
    assert replicas(world) == {"a": 4}
    message = f"revision {name} was rolled back at step 1 of 2, with 5 % of the traffic: it was aborted by hand"
    assert (of(world).message, revision(world, "b").message) == (message, message)
    assert world.condition("RolloutComplete") == ("False", "RolledBack")
    assert world.condition("Ready") == ("True", "ServingPrevious")
    before = world.tick()
    wait(world, 7200)
    assert world.tick() == before, "what was rolled back stays so"


def test_a_rollback_to_a_revision_whose_artifact_is_gone_keeps_its_replicas_and_says_so() -> None:
    world = at_first_step()
    world.fetched["s3://models/a.onnx"] = FetchObserved(FetchState.REFUSED, message="404")
    command(world, abort=revision(world, "b").name)
    moved(world)
    assert (shares(world), replicas(world)) == ({"a": FULL_WEIGHT}, {"a": 4})
    name = revision(world, "a").name
    told = f"; the artifact of revision {name} is away, so it serves from the replicas it has: 404"
    assert of(world).message.endswith(told)


def test_what_was_rolled_back_is_tried_again_when_somebody_says_so_once() -> None:
    world = at_first_step()
    name = revision(world, "b").name
    command(world, abort=f"{name}@{of(world).began}")
    moved(world)
    wait(world, 60)
    command(world, retry=name)
    assert world.states()[0] == ("b", "RolledBack"), "it has to name the rollout"
    command(world, retry=f"{name}@{of(world).began}")
    assert world.states()[0] == ("b", "Starting")
    ready(world, "b")
    world.tick()
    assert (shares(world), of(world).step) == ({"a": 9500, "b": 500}, 0)


def test_going_back_to_the_stable_revision_by_an_edit_ends_the_rollout() -> None:
    world = at_first_step()
    world.edit(stepped("a"))
    world.tick()
    assert (shares(world), replicas(world)) == ({"a": FULL_WEIGHT}, {"a": 4, "b": 1})
    assert of(world).state == "Withdrawn"
    moved(world)
    assert world.states() == [("a", "Serving"), ("b", "Retired")]
    assert world.condition("RolloutComplete") == ("True", "Complete")


def test_a_third_revision_waits_until_the_second_has_no_traffic_and_begins_with_the_first_step() -> None:
    world = at_first_step()
    wait(world, 120)
    ready(world, "b")
    world.tick()
    world.edit(stepped("c"))
    world.tick()
    assert world.states() == [("c", "Starting"), ("a", "Serving"), ("b", "Draining")]
    assert shares(world) == {"a": FULL_WEIGHT}
    ready(world, "c")
    world.tick()
    assert shares(world) == {"a": FULL_WEIGHT}
    assert "the router still has requests or traffic of an earlier revision" in of(world).message
    moved(world)
    assert world.states() == [("c", "Candidate"), ("a", "Serving"), ("b", "Retired")]
    assert (shares(world), of(world).step) == ({"a": 9500, "c": 500}, 0)


def test_a_revision_that_is_asked_for_again_while_it_drains_begins_anew_when_it_has_no_traffic_left() -> None:
    world = at_first_step()
    world.edit(stepped("a"))
    world.tick()
    world.edit(stepped("b", paused=True))
    world.tick()
    assert (world.states(), replicas(world)) == ([("b", "Draining"), ("a", "Serving")], {"a": 4, "b": 1})
    moved(world)
    assert (world.states(), of(world).step) == ([("b", "Starting"), ("a", "Serving")], 0)


def test_what_was_rolled_back_is_forgotten_when_the_spec_asks_for_another_revision() -> None:
    world = at_first_step()
    command(world, abort=revision(world, "b").name)
    moved(world)
    world.edit(stepped("c"))
    world.tick()
    assert world.states() == [("c", "Starting"), ("a", "Serving")]


def test_an_earlier_revision_comes_back_by_steps_and_can_be_rolled_back_itself() -> None:
    world = at_first_step()
    command(world, promote=revision(world, "b").name)
    world.settle()
    world.edit(stepped("a"))
    world.tick()
    ready(world, "a")
    world.tick()
    assert shares(world) == {"a": 500, "b": 9500}
    command(world, abort=revision(world, "a").name)
    moved(world)
    assert world.states() == [("a", "RolledBack"), ("b", "Serving")]
    assert (shares(world), replicas(world)) == ({"b": FULL_WEIGHT}, {"b": 4})


def test_a_candidate_that_does_not_get_ready_within_the_deadline_is_rolled_back() -> None:
    world = rolling(deadline="5m")
    wait(world, 299)
    assert world.states()[0] == ("b", "Failed")
    wait(world, 1)
    assert world.states()[0] == ("b", "RolledBack")
    assert of(world).message.endswith("with 0 % of the traffic: 0 of 1 wanted replicas are ready after 5m")


def test_steps_begin_in_their_windows_only() -> None:
    window = {"from": "08:00", "to": "09:00"}
    world = rolling(windows=[window])
    ready(world, "b")
    decided = world.tick()
    assert (shares(world), of(world).state, of(world).next_at) == (
        {"a": FULL_WEIGHT},
        "Waiting",
        "2026-01-01T08:00:00Z",
    )
    assert of(world).next == "step 1 of 2, 5 % of the traffic"
    assert decided.look_again_s == 8 * 3600
    wait(world, 8 * 3600)
    assert shares(world) == {"a": 9500, "b": 500}


def test_without_steps_all_traffic_moves_at_once_and_within_the_windows_all_the_same() -> None:
    world = rolling(steps=[], windows=[{"from": "08:00", "to": "09:00"}])
    ready(world, "b")
    world.tick()
    assert (shares(world), of(world).state) == ({"a": FULL_WEIGHT}, "Waiting")
    assert of(world).next == "step 1 of 1, 100 % of the traffic"
    wait(world, 8 * 3600)
    assert shares(world) == {"b": FULL_WEIGHT}
    moved(world)
    wait(world, 1)
    assert (world.states()[0], of(world).state) == (("b", "Serving"), "Promoted")


def test_a_time_zone_that_does_not_exist_is_refused() -> None:
    world = World(stepped("a", windows=[{"timezone": "Mars/Olympus"}]))
    world.tick()
    assert world.condition("Accepted") == ("False", "UnknownTimeZone")


def test_while_nothing_of_the_stable_revision_answers_the_candidate_gets_what_it_can_carry() -> None:
    world = at_first_step()
    ready(world, "a", 0)
    world.tick()
    assert shares(world) == {"b": FULL_WEIGHT}
    ready(world, "a")
    world.tick()
    assert shares(world) == {"a": 9500, "b": 500}


def test_in_a_full_pool_the_stable_revision_makes_room_as_far_as_the_floor_allows() -> None:
    world = rolling(maxSurge=0)
    assert replicas(world) == {"a": 3, "b": 0}
    ready(world, "a")
    world.tick()
    assert replicas(world) == {"a": 3, "b": 1}
    ready(world, "b")
    world.tick()
    moved(world)
    assert (shares(world), replicas(world)) == ({"a": 9500, "b": 500}, {"a": 3, "b": 1})


def test_a_single_replica_in_a_full_pool_stops_before_the_next_one_starts_and_comes_back_if_that_fails() -> None:
    world = rolling(maxSurge=0, replicas=1, deadline="1m")
    assert replicas(world) == {"a": 0, "b": 0}
    world.tick()
    assert replicas(world) == {"a": 0, "b": 1}
    wait(world, 60)
    assert world.states() == [("b", "RolledBack"), ("a", "Serving")]
    world.settle()
    assert replicas(world) == {"a": 1}


def test_a_router_that_says_nothing_for_a_while_gives_no_reason_to_shrink_what_has_traffic() -> None:
    world = rolling(maxSurge=0, replicas=3)
    command(world, promote=revision(world, "b").name)
    for _ in range(4):
        ready(world, "a")
        ready(world, "b")
        moved(world)
    before = replicas(world)
    world.route = None
    world.tick()
    assert replicas(world) == before


def test_an_artifact_that_is_away_for_a_while_holds_the_rollout_where_it_is() -> None:
    world = at_first_step()
    world.fetched["s3://models/b.onnx"] = FetchObserved(FetchState.UNAVAILABLE, message="away")
    wait(world, 600)
    assert (shares(world), of(world).step, of(world).state) == ({"a": 9500, "b": 500}, 0, "Waiting")


def test_a_candidate_that_its_engine_refuses_before_it_has_traffic_is_no_variant_any_more() -> None:
    world = rolling()
    world.refuse(workload(world, "b"), "model.onnx is truncated; export it again")
    world.tick()
    world.tick()
    assert world.states() == [("a", "Serving")]
    assert world.condition("RolloutComplete") == ("False", "NoneUsable")
    assert of(world).state == "Withdrawn"


def test_a_candidate_that_its_engine_refuses_later_is_rolled_back() -> None:
    world = at_first_step()
    world.refuse(workload(world, "b"), "the GPU is gone")
    world.tick()
    assert world.states() == [("b", "RolledBack"), ("a", "Serving")]
    assert of(world).message.endswith("with 5 % of the traffic: its engine refuses it: the GPU is gone")


def test_a_revision_that_starts_is_held_while_its_artifact_is_away_for_a_moment() -> None:
    world = rolling()
    world.fetched["s3://models/b.onnx"] = FetchObserved(FetchState.UNAVAILABLE, message="away")
    world.tick()
    assert (world.states()[0], of(world).state) == (("b", "Starting"), "Waiting")


def test_rollouts_of_another_model_are_waited_for_by_name() -> None:
    world = rolling()
    ready(world, "b")
    decided = plan.model(world.model, RUNTIMES, world.observation(), world.now, "model other rolls out")
    assert isinstance(decided.route, Route)
    assert isinstance(decided.status, ModelStatus)
    assert [arm.weight for arm in decided.route.arms] == [FULL_WEIGHT]
    assert decided.status.rollout is not None
    assert decided.status.rollout.message.endswith("it waits: model other rolls out")


def test_each_decision_is_told_once_by_a_name_that_says_which() -> None:
    world = World(stepped("a"))
    world.settle()
    world.edit(stepped("b"))
    told = list(world.tick().events)
    ready(world, "b")
    for _ in range(3):
        told += world.tick().events
        world.report()
    world.now += datetime.timedelta(seconds=120)
    told += world.tick().events
    name = revision(world, "b").name
    metadata = world.model.metadata.model_copy(update={"annotations": {"penstock.dev/abort": name}})
    world.model = world.model.model_copy(update={"metadata": metadata})
    for _ in range(2):
        told += world.tick().events
    rollout = f"digits.{name}.2026-01-01T00:00:00Z"
    assert [(event.name, event.is_warning) for event in told] == [
        (f"digits.{name}.first.0.RolloutBegun", False),
        (f"{rollout}.1.RolloutStep", False),
        (f"{rollout}.1.RolledBack", True),
    ]


def test_a_beginning_that_could_not_be_stored_is_told_under_the_same_name_when_it_is_decided_again() -> None:
    world = World(stepped("a"))
    world.settle()
    names_ = []
    for _ in range(2):
        world.edit(stepped("b"))
        before = world.model
        for _ in range(2):
            world.model, world.now = before, world.now + datetime.timedelta(seconds=3)
            names_ += [event.name for event in world.tick().events]
        command(world, abort=revision(world, "b").name)
        world.edit(stepped("a"))
        world.settle()
        command(world, retry=f"{of(world).revision}@{of(world).began}")
    first, again, other, other_again = names_
    assert (first, other) == (again, other_again)
    assert first != other


ANALYSIS = {"alpha": 0.01, "maxErrorRateIncrease": 0.05, "deadline": "30m"}


class Traffic:
    """Counts what was answered, as one process of a router."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counted: dict[str, Counts] = {}
        self.clock_s = 0.0
        self.mirror: Mirror | None = None

    def flow(
        self,
        seconds: float,
        failing: float = 0.0,
        rate: int = 200,
        differing: float = 0.0,
        judged: float = 0.0,
        wrong: tuple[float, float] = (0.02, 0.02),
    ) -> None:
        """Requests by the weights that were asked, which the router does at once; every tick is 5 s. Of a share
        ``judged`` users say that they were ``wrong``, of the stable revision and of the candidate.
        """
        world = self.world
        for _ in range(int(seconds / 5)):
            world.now += datetime.timedelta(seconds=5)
            self.clock_s += 5
            for arm in world.asked:
                before = self.counted.get(arm.workload, Counts())
                answered = 5 * rate * arm.weight // FULL_WEIGHT
                failed = round(answered * failing) if arm.workload == workload(world, "b") else 0
                mirrored = 5 * rate * self.mirror.weight // FULL_WEIGHT if self.mirror else 0
                compared = mirrored if self.mirror and arm.revision == self.mirror.revision else 0
                differs = round(compared * differing)
                said = round(answered * judged)
                bad = round(said * wrong[arm.workload == workload(world, "b")])
                self.counted[arm.workload] = Counts(
                    before.answered + answered,
                    before.failed + failed,
                    agreed=before.agreed + compared - differs,
                    disagreed=before.disagreed + differs,
                    judged=before.judged + said,
                    wrong=before.wrong + bad,
                )
            counts = {"router": dict(self.counted)}
            world.route = RouteObserved(world.asked, counts=counts, read_s={"router": self.clock_s})
            decided = world.tick().route
            self.mirror = decided.mirror if isinstance(decided, Route) else None


def analysed(**analysis: object) -> tuple[World, Traffic]:
    world = rolling(analysis=ANALYSIS | analysis)
    traffic = Traffic(world)
    traffic.flow(60)
    ready(world, "b")
    return world, traffic


def test_the_time_in_which_a_worse_revision_is_found_is_told_before_it_has_any_traffic() -> None:
    world, _ = analysed()
    ready(world, "b", 0)
    world.tick()
    found_s = of(world).detection_s
    assert (of(world).weight, found_s is not None) == (0, True)
    finds = "with this traffic the analysis finds 5 % failed requests where the stable revision has 0 %, in about"
    assert of(world).detection == f"{finds} {found_s:g} s"
    assert world.message("RolloutComplete").endswith(of(world).detection)


def test_a_revision_that_fails_is_rolled_back_with_the_numbers_in_the_reason() -> None:
    world, traffic = analysed()
    traffic.flow(120, failing=0.1)
    assert world.states() == [("b", "RolledBack"), ("a", "Serving")]
    assert shares(world) == {"a": FULL_WEIGHT}
    assert "was rolled back at step 1 of 2, with 5 % of the traffic: worse than the stable revision: 10 % of" in (
        of(world).message
    )


def test_a_good_revision_goes_through_all_steps_and_is_promoted_when_the_evidence_is_there() -> None:
    world, traffic = analysed()
    traffic.flow(130)
    assert of(world).step == 1
    for _ in range(3):
        ready(world, "b")
        traffic.flow(310)
    assert world.states()[0] == ("b", "Serving")
    assert "not worse than allowed: 0 % of" in of(world).message


def test_without_enough_evidence_the_last_step_goes_on_until_the_deadline_of_the_analysis() -> None:
    world, traffic = analysed(maxErrorRateIncrease=0.0001)
    traffic.flow(130)
    ready(world, "b")
    traffic.flow(320, rate=2)
    assert (of(world).step, world.states()[0]) == (1, ("b", "Candidate"))
    assert of(world).message.endswith("step 2 of 2; its time is over, and the evidence is awaited")
    assert of(world).next == "all traffic once the evidence allows it, else it is rolled back"
    traffic.flow(1800, rate=2)
    assert world.states()[0] == ("b", "RolledBack")
    assert "inconclusive after 30m, so onInconclusive: rollBack holds" in of(world).message


def test_what_is_inconclusive_may_be_left_to_a_person() -> None:
    world, traffic = analysed(maxErrorRateIncrease=0.0001, onInconclusive="pause")
    traffic.flow(130)
    ready(world, "b")
    traffic.flow(320 + 1810, rate=2)
    assert world.states()[0] == ("b", "Candidate")
    assert of(world).message.endswith("; promote or abort it")
    command(world, promote=revision(world, "b").name)
    ready(world, "b")
    traffic.flow(5)
    assert world.states()[0] == ("b", "Serving")


def test_no_counts_at_all_are_no_evidence_and_promote_nobody() -> None:
    world = rolling(analysis=ANALYSIS)
    ready(world, "b")
    for _ in range(3):
        world.tick()
        moved(world)
        wait(world, 400)
        ready(world, "b")
    assert (of(world).step, world.states()[0]) == (1, ("b", "Candidate"))


def test_a_route_asks_for_counts_where_an_analysis_is_given() -> None:
    world = World(stepped("a", analysis=ANALYSIS))
    decided = world.tick()
    assert isinstance(decided.route, Route)
    assert decided.route.observe


AGREEMENT = {"percent": 1.0, "maxDisagreement": 0.02}


def test_answers_are_compared_before_the_first_share_and_a_revision_that_is_wrong_never_gets_one() -> None:
    world, traffic = analysed(agreement=AGREEMENT)
    traffic.flow(5)
    b = revision(world, "b").name
    assert traffic.mirror == Mirror(b, 100, "{}")
    assert shares(world) == {"a": FULL_WEIGHT, "b": 0}
    assert of(world).message.endswith("step 1 of 2; it waits: 0 of 30 mirrored requests are compared")
    shares_seen = set()
    while world.states()[0] != ("b", "RolledBack"):
        traffic.flow(5, differing=0.9)
        shares_seen.add(shares(world).get("b", 0))
    assert shares_seen == {0}
    assert of(world).message.startswith(
        f"revision {b} was rolled back at step 1 of 2, with 0 % of the traffic: worse than the stable revision: "
        "its answers differ on 9 of 10 mirrored requests, 2 % are allowed (e-value "
    )
    assert shares(world) == {"a": FULL_WEIGHT}
    assert traffic.mirror is None


def test_a_revision_that_answers_alike_gets_its_first_share_and_is_promoted_with_the_numbers() -> None:
    world, traffic = analysed(agreement=AGREEMENT | {"percent": 10})
    traffic.flow(25)
    assert shares(world) == {"a": 9_500, "b": 500}
    for _ in range(4):
        ready(world, "b")
        traffic.flow(310)
    assert world.states()[0] == ("b", "Serving")
    assert "its answers differ on 0 of " in of(world).message
    assert traffic.mirror is None


def test_without_mirrored_requests_the_first_share_comes_after_a_minute() -> None:
    world, traffic = analysed(agreement=AGREEMENT | {"percent": 0.01})
    traffic.flow(55)
    assert shares(world) == {"a": FULL_WEIGHT, "b": 0}
    traffic.flow(20)
    assert shares(world) == {"a": 9_500, "b": 500}


def test_a_promotion_by_hand_waits_for_no_mirrored_requests() -> None:
    world, traffic = analysed(agreement=AGREEMENT)
    traffic.flow(5)
    command(world, promote=revision(world, "b").name)
    traffic.flow(10)
    assert shares(world)["b"] > 0


def test_a_revision_that_is_not_ready_is_no_arm_and_gets_no_copies() -> None:
    world, traffic = analysed(agreement=AGREEMENT)
    ready(world, "b", 0)
    traffic.flow(10)
    assert (shares(world), traffic.mirror) == ({"a": FULL_WEIGHT}, None)


def test_the_contract_says_by_what_answers_are_compared() -> None:
    read = {"joints": 17, "leastScore": 0.25, "most": 100, "overlap": 0.7}
    for output, said in (
        ({"labels": ["a", "b"]}, {"output": {"labels": True}}),
        ({"detections": {"joints": 17}}, {"output": {"detections": read}}),
    ):
        contract = {"output": output}
        rollout = {"analysis": {"agreement": AGREEMENT | {"tolerance": 0.1}}}
        world = World(model("a", rollout=rollout, contract=contract))
        world.settle()
        world.edit(model("b", 2, rollout=rollout, contract=contract))
        world.tick()
        ready(world, "b")
        traffic = Traffic(world)
        traffic.flow(5)
        assert traffic.mirror is not None
        found = json.loads(traffic.mirror.compare)
        assert found == said | {"tolerance": 0.1}


def test_where_nobody_compares_answers_none_are_waited_for_and_that_is_said() -> None:
    world = rolling(analysis=ANALYSIS | {"agreement": AGREEMENT})
    ready(world, "b")
    seen = dataclasses.replace(world.observation(), gateway="Gateway infra/web")
    decided = plan.model(world.model, RUNTIMES, seen, world.now)
    assert isinstance(decided.route, Route)
    assert decided.route.mirror is None
    assert [arm.weight for arm in decided.route.arms] == [9_500, 500]
    assert isinstance(decided.status, ModelStatus)
    accepted = next(c for c in decided.status.conditions if c.type == "Accepted")
    assert accepted.message.endswith("does not act on: spec.rollout.analysis.agreement")


FEEDBACK = {"maxIncrease": 0.05}


def test_a_revision_of_which_users_say_that_more_answers_are_wrong_is_rolled_back_with_the_numbers() -> None:
    world, traffic = analysed(feedback=FEEDBACK)
    traffic.flow(120, judged=0.2, wrong=(0.02, 0.4))
    assert world.states() == [("b", "RolledBack"), ("a", "Serving")]
    assert shares(world) == {"a": FULL_WEIGHT}
    said = of(world).message
    assert "with 5 % of the traffic: worse than the stable revision: 40 % of " in said
    assert " answers with feedback were wrong, of the stable revision 2.11 % of " in said


def test_a_revision_of_which_users_say_the_same_is_promoted_with_the_numbers() -> None:
    world, traffic = analysed(feedback=FEEDBACK)
    traffic.flow(130, judged=1.0)
    assert of(world).step == 1
    assert "wrong answers by feedback where the stable revision has 2 %, in about" in of(world).detection
    for _ in range(3):
        ready(world, "b")
        traffic.flow(310, judged=1.0)
    assert world.states()[0] == ("b", "Serving")
    assert " answers with feedback were wrong, of the stable revision 2 % of " in of(world).message


def test_without_feedback_nothing_is_promoted_by_it() -> None:
    world, traffic = analysed(feedback=FEEDBACK)
    for _ in range(4):
        ready(world, "b")
        traffic.flow(310)
    assert (of(world).step, world.states()[0]) == (1, ("b", "Candidate"))
    assert "nobody has given feedback on it (against the candidate" in of(world).verdict
    assert of(world).feedback_detection_s is None
    traffic.flow(1800)
    assert world.states()[0] == ("b", "RolledBack")
    assert "inconclusive after 30m, so onInconclusive: rollBack holds" in of(world).message


def test_a_route_asks_for_ids_where_feedback_is_asked_for_and_behind_a_gateway_that_is_said() -> None:
    world = World(stepped("a", analysis=ANALYSIS | {"feedback": {}}))
    decided = world.tick()
    assert isinstance(decided.route, Route)
    assert (decided.route.observe, decided.route.feedback) == (True, True)
    seen = dataclasses.replace(world.observation(), gateway="Gateway infra/web")
    status = plan.model(world.model, RUNTIMES, seen, world.now).status
    assert isinstance(status, ModelStatus)
    accepted = next(c for c in status.conditions if c.type == "Accepted")
    assert accepted.message.endswith("does not act on: spec.rollout.analysis.feedback")
