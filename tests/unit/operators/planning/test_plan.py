from __future__ import annotations

import dataclasses
import datetime
import json

from operators.api.endpoint import Assignment
from operators.api.plan import FULL_WEIGHT, Arm, Fetch, FetchObserved, FetchState, Plan, Route, RouteObserved
from operators.api.runtime import ServingRuntimeSpec
from operators.api.status import ModelStatus
from operators.planning import names, plan, revisions
from tests.unit.operators.planning.world import RUNTIMES, World, digest, model


def serving_world() -> World:
    world = World(model())
    world.settle()
    return world


def workload_of(world: World, index: int = 0) -> str:
    revision = world.model.status.revisions[index]
    return names.workload("digits", revision.name, revision.variant)


def test_a_new_model_is_fetched_started_and_not_routed_until_it_is_ready() -> None:
    world = World(model())
    decided = world.tick()
    (revision,) = world.model.status.revisions
    (workload,) = decided.workloads
    message = f"model digits: revision {revision.name} (default) is starting"
    assert decided.route == Route("default", "digits", (), message)
    assert decided.fetches == {Fetch("s3://models/a.onnx", digest("a"))}
    assert workload.artifact == Fetch("s3://models/a.onnx", digest("a"))
    assert workload.name == f"digits-{revision.name}-default"
    assert world.condition("Ready") == ("False", "Starting")
    assert world.condition("VariantsReady") == ("True", "Selected")


def test_a_model_whose_replicas_answer_and_whose_route_is_reported_is_ready() -> None:
    world = serving_world()
    (revision,) = world.model.status.revisions
    assert world.asked == (Arm(workload_of(world), revision.name, "default", FULL_WEIGHT),)
    assert (revision.state, revision.weight, revision.ready_replicas) == ("Serving", FULL_WEIGHT, 1)
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("RolloutComplete") == ("True", "Complete")
    assert world.model.status.url == "http://router/v2/models/digits"


def test_a_settled_model_gives_the_same_plan_at_any_later_time() -> None:
    world = serving_world()
    first = world.tick()
    world.now += datetime.timedelta(days=1)
    assert world.tick() == first


def test_traffic_moves_to_the_next_revision_when_it_is_ready_and_the_old_one_stays_until_it_is_idle() -> None:
    world = serving_world()
    old = workload_of(world)
    world.edit(model("b"))
    world.tick()
    new = workload_of(world)
    assert world.states() == [("b", "Starting"), ("a", "Serving")]
    assert [arm.workload for arm in world.asked] == [old]
    assert set(world.workloads) == {old, new}

    world.workloads[new] = dataclasses.replace(world.workloads[new], ready=1)
    world.tick()
    assert world.states() == [("b", "Serving"), ("a", "Draining")]
    assert [arm.workload for arm in world.asked] == [new]
    assert set(world.workloads) == {old, new}, "the router still sends traffic to the old one"
    assert world.condition("Ready") == ("True", "TrafficMoving")

    world.report(in_flight={old: 1})
    world.tick()
    assert world.states() == [("b", "Serving"), ("a", "Draining")]
    assert world.condition("RolloutComplete") == ("False", "TrafficMoving")

    world.report()
    world.tick()
    assert world.states() == [("b", "Serving"), ("a", "Retired")]
    assert set(world.workloads) == {new}


def test_what_served_before_goes_on_serving_while_the_next_revision_is_refused() -> None:
    world = serving_world()
    old = workload_of(world)
    world.edit(model("b"))
    world.tick()
    world.refuse(workload_of(world), "model.onnx is truncated; export it again")
    world.tick()
    world.tick()
    assert [arm.workload for arm in world.asked] == [old]
    assert world.condition("Ready") == ("True", "ServingPrevious")
    assert world.condition("RolloutComplete") == ("False", "NoneUsable")
    assert world.message("RolloutComplete") == (
        "model digits: no variant can be served: variant default: model.onnx is truncated; export it again"
    )
    assert set(world.workloads) == {old}
    assert world.tick() == world.tick()


def test_a_new_revision_that_crashes_and_answers_for_a_moment_gets_no_traffic() -> None:
    world = serving_world()
    old = workload_of(world)
    world.edit(model("b"))
    world.tick()
    new = workload_of(world)
    world.workloads[new] = dataclasses.replace(world.workloads[new], ready=1, restarts=1, recovering=True)
    world.tick()
    assert [arm.workload for arm in world.asked] == [old]
    world.workloads[new] = dataclasses.replace(world.workloads[new], recovering=False)
    world.tick()
    assert [arm.workload for arm in world.asked] == [new]


def test_going_back_to_the_earlier_spec_serves_the_retired_revision_again() -> None:
    world = serving_world()
    first = world.model.status.revision
    world.edit(model("b"))
    world.settle()
    world.edit(model("a"))
    world.settle()
    assert world.model.status.revision == first
    assert world.states() == [("a", "Serving"), ("b", "Retired")]


def test_retired_revisions_keep_their_artifacts_up_to_the_history_limit() -> None:
    world = World(model("a", historyLimit=1))
    world.settle()
    for letter in "bcd":
        world.edit(model(letter, historyLimit=1))
        world.settle()
    assert world.states() == [("d", "Serving"), ("c", "Retired")]
    kept = {Fetch(f"s3://models/{letter}.onnx", digest(letter)) for letter in "cd"}
    assert world.tick().fetches == kept


def test_a_new_number_of_replicas_is_no_new_revision() -> None:
    world = serving_world()
    revision = world.model.status.revision
    world.edit(model("a", replicas=3))
    decided = world.settle()
    assert world.model.status.revision == revision
    assert [w.replicas for w in decided.workloads] == [3]


def test_no_replicas_means_no_traffic_and_a_message_that_says_so() -> None:
    world = serving_world()
    world.edit(model("a", replicas=0))
    decided = world.settle()
    message = "model digits: spec.replicas is 0; set it to 1 or more to serve"
    assert decided.route == Route("default", "digits", (), message)
    assert world.condition("Ready") == ("False", "NoReplicas")


def test_the_next_variant_is_tried_when_the_engine_refuses_the_first() -> None:
    int8 = {"name": "int8", "source": {"uri": "s3://models/b.onnx", "digest": digest("b")}}
    world = World(model("a", variants=[{"name": "fp32"}, int8]))
    world.tick()
    world.refuse(workload_of(world), "operator Foo is unknown")
    world.tick()
    world.settle()
    assert world.model.status.variant == "int8"
    assert [(v.name, v.state, v.reason) for v in world.model.status.variants] == [
        ("fp32", "Refused", "operator Foo is unknown"),
        ("int8", "Selected", "first variant that can be served"),
    ]


def test_a_wrong_digest_is_a_condition_and_starts_nothing() -> None:
    world = World(model())
    world.fetched["s3://models/a.onnx"] = FetchObserved(FetchState.REFUSED, message="digest is X, expected Y")
    decided = world.tick()
    assert decided.workloads == ()
    assert world.condition("Ready") == ("False", "NoneUsable")
    expected = "model digits: no variant can be served: variant default: digest is X, expected Y"
    assert world.message("VariantsReady") == expected


def test_storage_that_does_not_answer_is_waited_for() -> None:
    world = World(model())
    unavailable = FetchObserved(FetchState.UNAVAILABLE, message="s3://models: connection refused")
    world.fetched["s3://models/a.onnx"] = unavailable
    world.tick()
    assert world.condition("VariantsReady") == ("False", "Preparing")
    world.fetched.clear()
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_source_without_digest_is_pinned_to_what_was_found_first() -> None:
    world = World(model(source={"uri": "s3://models/a.onnx"}))
    world.settle()
    revision = world.model.status.revision
    assert [(s.uri, s.digest) for s in world.model.status.sources] == [("s3://models/a.onnx", digest("a"))]
    world.fetched["s3://models/a.onnx"] = FetchObserved(FetchState.FETCHING)
    world.tick()
    world.fetched["s3://models/a.onnx"] = FetchObserved(FetchState.UNAVAILABLE, message="away")
    world.tick()
    world.fetched.clear()
    world.edit(model(source={"uri": "s3://models/a.onnx"}, replicas=2))
    world.settle()
    assert world.model.status.revision == revision
    assert [(s.uri, s.digest) for s in world.model.status.sources] == [("s3://models/a.onnx", digest("a"))]


def test_a_revision_that_is_not_ready_in_time_is_reported_and_still_tried() -> None:
    world = World(model())
    decided = world.tick()
    assert decided.look_again_s == 120
    world.now += datetime.timedelta(seconds=121)
    world.tick()
    assert world.states() == [("a", "Failed")]
    assert world.condition("RolloutComplete") == ("False", "RevisionFailed")
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_an_unknown_runtime_is_a_condition_that_names_it() -> None:
    world = World(model(runtime="tritn"))
    world.tick()
    assert world.condition("Accepted") == ("False", "RuntimeNotFound")
    assert world.message("Ready") == (
        "model digits: spec.runtime 'tritn' does not exist; apply a ServingRuntime of that name, or "
        "use one of auto, kserve, litert, onnxruntime, openvino"
    )


def test_a_kind_that_the_cluster_does_not_know_is_a_condition_that_says_so_until_it_does() -> None:
    world = World(model(), cannot_deploy_as={"Deployment": "the cluster does not serve it; install it"})
    world.tick()
    assert world.condition("Accepted") == ("False", "KindNotInstalled")
    assert world.message("Ready") == (
        "model digits: spec.runtime 'onnxruntime' is deployed as Deployment: the cluster does not serve it; install it"
    )
    assert world.states() == []
    world.cannot_deploy_as = {}
    world.settle()
    assert world.condition("Ready") == ("True", "Serving")


def test_a_revision_of_a_runtime_of_ones_own_keeps_the_name_it_had_before_kinds_were_named() -> None:
    own = ServingRuntimeSpec(image="mine:1", formats=("onnx",))
    artifact = Fetch("s3://models/a.onnx", digest("a"))
    assert revisions.target(model(runtime="mine"), "default", artifact, own, "").name == "e5fa29c3"


def test_fields_that_are_not_acted_on_are_named_in_the_status() -> None:
    passes = [{"quantize": {"mode": "dynamic"}}]
    variants = [{"name": "fp32"}, {"name": "int8", "passes": passes}]
    world = World(model(variants=variants, scaling={"maxReplicas": 3}), cannot_build="nothing runs passes here")
    world.settle()
    assert world.condition("Accepted") == ("True", "PartlyActedOn")
    expected = "model digits: this version stores, but does not act on: spec.scaling, spec.variants[int8].passes"
    assert world.message("Accepted") == expected
    assert [(v.name, v.state) for v in world.model.status.variants] == [("fp32", "Selected"), ("int8", "NotMade")]


def test_what_keeps_clients_at_an_arm_is_passed_on_and_said_not_to_where_the_data_plane_cannot() -> None:
    world = World(model(rollout={"assignment": {"header": "X-User"}}))
    world.settle()
    seen = world.observation()
    ours, gateway = (
        plan.model(world.model, RUNTIMES, each, world.now)
        for each in (seen, dataclasses.replace(seen, gateway="Gateway infra/web"))
    )
    assert isinstance(ours.route, Route)
    assert ours.route.assignment == Assignment(header="X-User")
    reasons = [
        condition.reason
        for decided in (ours, gateway)
        if decided.status is not None
        for condition in decided.status.conditions
        if condition.type == "Accepted"
    ]
    assert reasons == ["Accepted", "PartlyActedOn"]


def test_the_limit_of_an_arm_is_passed_on_and_restarts_nothing() -> None:
    world = serving_world()
    before = world.settle().workloads
    world.edit(model(traffic={"maxConcurrent": 8}, generation=2))
    after = world.settle()
    assert isinstance(after.route, Route)
    assert (after.route.max_concurrent, after.workloads) == (8, before)
    seen = dataclasses.replace(world.observation(), gateway="Gateway infra/web")
    status = plan.model(world.model, RUNTIMES, seen, world.now).status
    assert status is not None
    assert "PartlyActedOn" in {condition.reason for condition in status.conditions}


def test_a_dead_replica_makes_the_model_not_ready_but_moves_no_traffic() -> None:
    world = serving_world()
    name = workload_of(world)
    world.workloads[name] = dataclasses.replace(world.workloads[name], ready=0, restarts=1)
    world.tick()
    assert world.condition("Ready") == ("False", "NoReadyReplica")
    assert [arm.workload for arm in world.asked] == [name]


def test_a_report_that_is_not_the_data_planes_own_is_told_as_what_it_is() -> None:
    world = serving_world()
    assert world.route is not None
    world.route = dataclasses.replace(world.route, told_by="the status of Gateway infra/web")
    world.tick()
    assert world.message("RolloutComplete").endswith(" has all traffic, by the status of Gateway infra/web")


def test_why_traffic_has_not_moved_is_told_and_looked_at_again() -> None:
    world = serving_world()
    seen = dataclasses.replace(
        world.observation(), route=RouteObserved(()), route_message="Gateway infra/web says no", look_again_s=3
    )
    decided = plan.model(world.model, RUNTIMES, seen, world.now)
    assert isinstance(decided.status, ModelStatus)
    conditions = {c.type: (c.status, c.reason, c.message) for c in decided.status.conditions}
    moving = f"traffic is moving to revision {decided.status.revision}: Gateway infra/web says no"
    assert conditions["RolloutComplete"] == ("False", "TrafficMoving", moving)
    assert conditions["Ready"] == ("False", "NotRouted", "model digits: Gateway infra/web says no")
    assert decided.look_again_s == 3


def fail(world: World, reason: str, message: str, index: int = 0) -> None:
    name = workload_of(world, index)
    world.workloads[name] = dataclasses.replace(world.workloads[name], ready=0, reason=reason, message=message)
    world.tick()


def test_what_keeps_a_first_revision_from_starting_is_reason_and_message_of_the_model() -> None:
    world = World(model())
    world.tick()
    fail(world, "ImagePullFailed", "pod p: image nope:1 cannot be pulled; push it")
    (revision,) = world.model.status.revisions
    message = (
        f"model digits: revision {revision.name} (default) is starting: pod p: image nope:1 cannot be pulled; push it"
    )
    for type_ in ("Ready", "RolloutComplete"):
        assert world.condition(type_) == ("False", "ImagePullFailed")
        assert world.message(type_) == message
    assert (revision.reason, revision.message) == ("ImagePullFailed", "pod p: image nope:1 cannot be pulled; push it")


def test_what_keeps_the_next_revision_from_starting_is_told_while_the_old_one_serves() -> None:
    world = serving_world()
    old = world.model.status.revision
    world.edit(model("b"))
    world.tick()
    fail(world, "OutOfMemory", "pod p needs more memory")
    new = world.model.status.revisions[0].name
    starting = f"model digits: revision {new} (default) is starting: pod p needs more memory"
    assert world.condition("RolloutComplete") == ("False", "OutOfMemory")
    assert world.message("RolloutComplete") == starting
    assert world.condition("Ready") == ("True", "ServingPrevious")
    assert world.message("Ready") == f"revision {old} goes on serving; {starting}"


def test_a_revision_that_is_not_ready_in_time_goes_on_telling_what_is_wrong_now() -> None:
    world = World(model())
    world.tick()
    name = workload_of(world)
    world.workloads[name] = dataclasses.replace(
        world.workloads[name], doing="pod p: container fetch copies the artifact"
    )
    world.now += datetime.timedelta(seconds=121)
    world.tick()
    begun = f"model digits: revision {world.model.status.revisions[0].name} (default) does not start: "
    overdue = "not ready after 120 s, and still being tried: "
    assert world.message("Ready") == f"{begun}{overdue}pod p: container fetch copies the artifact"
    fail(world, "Crashing", "pod p crashes")
    assert world.condition("Ready") == ("False", "Crashing")
    assert world.message("Ready") == f"{begun}{overdue}pod p crashes"
    world.settle()
    assert world.message("Ready") == f"revision {world.model.status.revision} (default) serves"


def test_a_model_none_of_whose_replicas_answers_says_why() -> None:
    world = serving_world()
    fail(world, "NodeLost", "pod p: node n no longer reports on it")
    assert world.condition("Ready") == ("False", "NodeLost")
    revision = world.model.status.revision
    why = "pod p: node n no longer reports on it"
    assert world.message("Ready") == f"model digits: no replica of revision {revision} answers: {why}"
    assert world.condition("RolloutComplete") == ("True", "Complete")


def test_a_model_with_fewer_replicas_than_wanted_serves_and_says_so() -> None:
    world = World(model(replicas=2))
    world.settle()
    name = workload_of(world)
    dying = dataclasses.replace(world.workloads[name], ready=1, reason="OutOfMemory", message="pod p needs more memory")
    world.workloads[name] = dying
    world.tick()
    revision = world.model.status.revision
    assert world.condition("Ready") == ("True", "Degraded")
    expected = f"revision {revision} (default) serves with 1 of 2 replicas: pod p needs more memory"
    assert world.message("Ready") == expected
    world.workloads[name] = dataclasses.replace(dying, ready=2)
    world.tick()
    assert world.condition("Ready") == ("True", "Degraded")
    assert world.message("Ready") == f"revision {revision} (default) serves: pod p needs more memory"


def test_a_new_revision_that_dies_before_traffic_has_reached_it_does_not_make_the_model_not_ready() -> None:
    world = serving_world()
    old = workload_of(world)
    world.edit(model("b"))
    world.tick()
    new = workload_of(world)
    world.workloads[new] = dataclasses.replace(world.workloads[new], ready=1)
    world.tick()
    world.workloads[new] = dataclasses.replace(world.workloads[new], ready=0)
    world.tick()
    assert world.condition("Ready") == ("True", "TrafficMoving")
    world.workloads[old] = dataclasses.replace(world.workloads[old], ready=0)
    world.tick()
    assert world.condition("Ready") == ("False", "NoReadyReplica")


QUOTA = "deployments.apps is forbidden: exceeded quota: q"
NOT_DONE = f"a change could not be made, and is tried again: {QUOTA}"


def test_a_change_that_is_refused_is_told_beside_what_goes_on_serving() -> None:
    world = serving_world()
    status = world.model.status
    world.model = world.model.model_copy(update={"status": not_done(world, 0)})
    assert world.condition("RolloutComplete") == ("False", "NotApplied")
    assert world.message("RolloutComplete") == NOT_DONE
    assert world.condition("Ready") == ("True", "ServingPrevious")
    assert world.message("Ready") == f"revision {status.revision} goes on serving; {NOT_DONE}"


def test_a_first_change_that_is_refused_is_why_the_model_is_not_ready() -> None:
    world = World(model())
    world.tick()
    world.model = world.model.model_copy(update={"status": not_done(world, 0)})
    assert world.condition("Ready") == ("False", "NotApplied")
    assert world.message("Ready") == NOT_DONE


def test_being_refused_again_the_same_way_changes_nothing() -> None:
    world = serving_world()
    first = not_done(world, 0)
    world.model = world.model.model_copy(update={"status": first})
    assert not_done(world, 60) == first


def not_done(world: World, after_s: float) -> ModelStatus:
    now = world.now + datetime.timedelta(seconds=after_s)
    decided = plan.model(world.model, RUNTIMES, world.observation(), now)
    assert decided.status is not None
    failed = plan.not_done(decided.status, world.model.status.conditions, QUOTA, now)
    assert isinstance(failed, ModelStatus)
    return failed


def test_planning_reads_nothing_but_its_arguments() -> None:
    world = serving_world()
    first: Plan = plan.model(world.model, RUNTIMES, world.observation(), world.now)
    assert plan.model(world.model, RUNTIMES, world.observation(), world.now) == first


def test_batching_and_limits_are_part_of_a_revision_and_a_change_rolls_out() -> None:
    world = serving_world()
    (plain,) = world.settle().workloads
    assert plain.settings == ""

    world.edit(model(batching={"maxSize": 8}, limits={"execution": "5s", "maxPending": 64}))
    (batching,) = world.settle().workloads
    assert json.loads(batching.settings) == {
        "batching": {"maxSize": 8},
        "limits": {"execution": "5s", "maxPending": 64},
    }
    assert [(r.state, r.name) for r in world.model.status.revisions] == [
        ("Serving", batching.revision),
        ("Retired", plain.revision),
    ]
    assert world.condition("Accepted") == ("True", "Accepted")

    world.edit(model(batching={}, limits={}))
    (again,) = world.settle().workloads
    assert again == plain
