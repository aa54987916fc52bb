from __future__ import annotations

import datetime

from operators.api.endpoint import Assignment, Endpoint
from operators.api.model import Model
from operators.api.outcomes import Tally, Told
from operators.api.plan import FULL_WEIGHT, Observation, Outcomes, Plan, RouteObserved, Split
from operators.api.status import EndpointStatus, RolloutStatus
from operators.planning import endpoints
from tests.unit.operators.planning.world import START, World, model

SERVING = World(model())
SERVING.settle()


def endpoint(**spec: object) -> Endpoint:
    arms = [{"name": "control", "model": "a", "weight": 90}, {"name": "challenger", "model": "b", "weight": 10}]
    return Endpoint.model_validate({"metadata": {"name": "reader"}, "spec": {"arms": arms, **spec}})


def named(name: str, of: Model = SERVING.model) -> Model:
    return of.model_copy(update={"metadata": of.metadata.model_copy(update={"name": name})})


ARMS = {"control": "a", "challenger": "b"}
BOTH = ("control", "challenger")
SEEN = Observation(url="http://router/default/reader/v2/models/reader")


def plan(given: Endpoint, *models: Model, seen: Observation = SEEN) -> Plan:
    return endpoints.plan(given, models, seen, START)


def told(decided: Plan, type_: str = "Ready") -> tuple[str, str, str]:
    assert decided.status is not None
    return next((c.status, c.reason, c.message) for c in decided.status.conditions if c.type == type_)


def test_an_endpoint_splits_traffic_over_its_models() -> None:
    decided = plan(endpoint(assignment={"header": "x-user"}), named("a"), named("b"))
    assert decided.route == Split(
        "default", "reader", (("a", 9000), ("b", 1000)), Assignment(header="x-user"), ARMS, share_arms=BOTH
    )
    assert told(decided) == ("True", "Serving", "every arm's model serves")


def test_an_arm_whose_model_does_not_serve_gets_no_traffic_and_the_endpoint_is_not_ready() -> None:
    decided = plan(endpoint(), named("a"), named("b", model()))
    assert decided.route == Split(
        "default", "reader", (("a", FULL_WEIGHT),), None, {"control": "a"}, share_arms=("control",)
    )
    message = "endpoint reader: these arms have no serving model, the others get all: challenger (model b, weight 10)"
    assert told(decided) == ("False", "ArmsMissing", message)


def test_an_endpoint_is_as_ready_as_its_models() -> None:
    starting = World(model())
    starting.settle()
    starting.workloads.clear()
    starting.tick()
    decided = plan(endpoint(), named("a"), named("b", starting.model))
    assert decided.route == Split("default", "reader", (("a", 9000), ("b", 1000)), None, ARMS, share_arms=BOTH)
    assert told(decided)[:2] == ("False", "ModelNotReady")


def test_without_any_serving_model_there_is_nothing_to_route_to() -> None:
    decided = plan(endpoint())
    assert decided.route == Split("default", "reader", (), None)
    message = (
        "endpoint reader: no arm has a serving model: control (model a, weight 90), challenger (model b, weight 10)"
    )
    assert told(decided) == ("False", "NoArmAnswers", message)


def test_an_endpoint_with_the_name_of_a_model_takes_none_of_its_traffic() -> None:
    decided = plan(endpoint(), named("a"), named("b"), named("reader"))
    assert decided.route is None
    message = "endpoint reader: a Model of this name has the same URL; give one of them another name"
    assert told(decided) == ("False", "NameTaken", message)
    assert told(decided, "Accepted") == ("False", "NameTaken", message)


def test_sticky_arms_are_refused_where_the_data_plane_cannot_keep_a_client_at_one() -> None:
    gateway = Observation(gateway="Gateway infra/web")
    assert plan(endpoint(), named("a"), named("b"), seen=gateway).route is not None
    decided = plan(endpoint(assignment={"header": "x-user"}), named("a"), named("b"), seen=gateway)
    assert decided.route is None
    message = (
        "endpoint reader: spec.assignment: Gateway infra/web cannot keep a client at one arm; leave it out to assign "
        "each request by itself"
    )
    assert told(decided) == ("False", "NotSupported", message)
    assert told(decided, "Accepted") == ("False", "NotSupported", message)


def test_an_endpoint_whose_route_is_refused_is_not_ready() -> None:
    decided = plan(endpoint(), named("a"), named("b"), seen=Observation(route_message="Gateway infra/web says no"))
    assert told(decided) == ("False", "NotRouted", "endpoint reader: Gateway infra/web says no")


def test_where_nobody_counts_outcomes_there_is_no_experiment() -> None:
    gateway = Observation(gateway="Gateway infra/web")
    decided = plan(endpoint(policy="bandit", experiment={}), named("a"), named("b"), seen=gateway)
    assert decided.route == Split("default", "reader", (("a", 9000), ("b", 1000)), None, ARMS, share_arms=BOTH)
    message = (
        "endpoint reader: this version stores, but does not act on: spec.policy "
        "(Gateway infra/web counts no outcomes), spec.experiment (Gateway infra/web counts no outcomes)"
    )
    assert told(decided, "Accepted") == ("True", "PartlyActedOn", message)


def looked_at(given: Endpoint, decided: Plan) -> Endpoint:
    return given.model_copy(update={"status": decided.status})


def test_the_arms_of_an_experiment_are_told_to_the_router_and_what_it_counts_to_people() -> None:
    given = endpoint(experiment={"metric": "clicks"})
    first = plan(given, named("a"), named("b"))
    assert isinstance(first.route, Split)
    assert isinstance(first.status, EndpointStatus)
    assert first.status.experiment is not None
    name = first.status.experiment.name
    assert first.route.outcomes == Outcomes(name, "clicks", ("control", "challenger"))
    assert (first.look_again_s, first.reason) == (5.0, "")
    counted = {"r/1": Told(name, {"control": Tally.of(2, 0, 0.9)}), "r/2": Told("0", {"control": Tally.of(5, 0, 0.9)})}
    later = START + datetime.timedelta(seconds=5)
    seen = Observation(route=RouteObserved((), outcomes=counted))
    second = endpoints.plan(looked_at(given, first), [named("a"), named("b")], seen, later)
    assert isinstance(second.status, EndpointStatus)
    assert second.status.experiment is not None
    assert [(arm.name, arm.units, arm.mean) for arm in second.status.experiment.arms] == [
        ("control", 1, 2.0),
        ("challenger", 0, None),
    ]


def test_while_an_arm_is_away_nobody_is_assigned() -> None:
    decided = plan(endpoint(experiment={}), named("a"), named("b", model()))
    assert isinstance(decided.route, Split)
    assert decided.route.outcomes is not None
    assert not decided.route.outcomes.assigns


def test_a_bandit_says_in_the_log_how_its_shares_move() -> None:
    given = endpoint(policy="bandit")
    first = plan(given, named("a"), named("b"))
    assert isinstance(first.status, EndpointStatus)
    assert first.status.experiment is not None
    name = first.status.experiment.name
    arms = {"control": Tally.of(0, 0, 0.9).times(500), "challenger": Tally.of(1, 0, 0.1).times(50)}
    seen = Observation(route=RouteObserved((), outcomes={"r/1": Told(name, arms)}))
    later = START + datetime.timedelta(minutes=1)
    second = endpoints.plan(looked_at(given, first), [named("a"), named("b")], seen, later)
    assert isinstance(second.route, Split)
    assert second.route.shares == (("a", 8_000), ("b", 2_000))
    assert second.reason == f"bandit {name}: shares control 90 → 80 %, challenger 10 → 20 %"


def test_what_was_counted_is_kept_while_an_endpoint_is_refused() -> None:
    given = endpoint(experiment={})
    first = plan(given, named("a"), named("b"))
    refused = plan(looked_at(given, first), named("a"), named("b"), named("reader"))
    assert isinstance(first.status, EndpointStatus)
    assert isinstance(refused.status, EndpointStatus)
    assert refused.status.experiment == first.status.experiment


def rolling(name: str, began: str, state: str = "Progressing") -> Model:
    status = RolloutStatus.model_validate(
        {"revision": "5e6f", "stable": "1a2b", "began": began, "state": state, "since": began, "message": ""}
    )
    model = named(name)
    return model.model_copy(update={"status": model.status.model_copy(update={"rollout": status})})


def test_arms_of_an_endpoint_roll_one_at_a_time_and_the_second_says_for_whom_it_waits() -> None:
    first, second = rolling("b", "2026-01-01T00:00:00Z"), rolling("a", "2026-01-01T00:00:01Z", "Waiting")
    models = [first, second]
    assert endpoints.waits(first, [endpoint()], models) == ""
    message = "model b, which shares endpoint reader, rolls out revision 5e6f"
    assert endpoints.waits(second, [endpoint()], models) == message
    assert endpoints.waits(named("a"), [endpoint()], [first, named("a")]) == message, "one that is about to begin"
    ended = rolling("b", "2026-01-01T00:00:00Z", "Promoted")
    assert endpoints.waits(second, [endpoint()], [ended, second]) == ""
    assert endpoints.waits(second, [], models) == ""


def test_of_two_rollouts_that_began_in_the_same_second_the_first_by_name_goes_on() -> None:
    one, other = rolling("a", "2026-01-01T00:00:00Z"), rolling("b", "2026-01-01T00:00:00Z")
    waiting = [endpoints.waits(model, [endpoint()], [one, other]) for model in (one, other)]
    assert waiting == ["", "model a, which shares endpoint reader, rolls out revision 5e6f"]
