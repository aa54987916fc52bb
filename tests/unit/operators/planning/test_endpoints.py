from __future__ import annotations

from operators.api.endpoint import Assignment, Endpoint
from operators.api.model import Model
from operators.api.plan import FULL_WEIGHT, Observation, Plan, Split
from operators.api.status import RolloutStatus
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
SEEN = Observation(url="http://router/default/reader/v2/models/reader")


def plan(given: Endpoint, *models: Model, seen: Observation = SEEN) -> Plan:
    return endpoints.plan(given, models, seen, START)


def told(decided: Plan, type_: str = "Ready") -> tuple[str, str, str]:
    assert decided.status is not None
    return next((c.status, c.reason, c.message) for c in decided.status.conditions if c.type == type_)


def test_an_endpoint_splits_traffic_over_its_models() -> None:
    decided = plan(endpoint(assignment={"header": "x-user"}), named("a"), named("b"))
    assert decided.route == Split("default", "reader", (("a", 9000), ("b", 1000)), Assignment(header="x-user"), ARMS)
    assert told(decided) == ("True", "Serving", "every arm's model serves")


def test_an_arm_whose_model_does_not_serve_gets_no_traffic_and_the_endpoint_is_not_ready() -> None:
    decided = plan(endpoint(), named("a"), named("b", model()))
    assert decided.route == Split("default", "reader", (("a", FULL_WEIGHT),), None, {"control": "a"})
    message = "endpoint reader: these arms have no serving model, the others get all: challenger (model b, weight 10)"
    assert told(decided) == ("False", "ArmsMissing", message)


def test_an_endpoint_is_as_ready_as_its_models() -> None:
    starting = World(model())
    starting.settle()
    starting.workloads.clear()
    starting.tick()
    decided = plan(endpoint(), named("a"), named("b", starting.model))
    assert decided.route == Split("default", "reader", (("a", 9000), ("b", 1000)), None, ARMS)
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


def test_fields_that_are_not_acted_on_are_named() -> None:
    decided = plan(endpoint(policy="bandit"), named("a"), named("b"))
    message = "endpoint reader: this version stores, but does not act on: spec.policy"
    assert told(decided, "Accepted") == ("True", "PartlyActedOn", message)


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
