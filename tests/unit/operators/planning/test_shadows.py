from __future__ import annotations

from collections.abc import Mapping

from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.plan import Counts, Observation, Plan, RouteObserved, Shadow, Split
from operators.api.status import EndpointStatus, ShadowStatus
from operators.planning import endpoints, shadows
from tests.unit.operators.planning.test_endpoints import named
from tests.unit.operators.planning.world import START

SHADOWS = [{"model": "next", "percent": 10, "compare": {"tolerance": 0.01}}, {"model": "other"}]


def endpoint(shadow: object = SHADOWS, status: EndpointStatus | None = None) -> Endpoint:
    arms = [{"name": "control", "model": "a", "weight": 100}]
    found = Endpoint.model_validate({"metadata": {"name": "reader"}, "spec": {"arms": arms, "shadow": shadow}})
    return found.model_copy(update={"status": status}) if status else found


def with_labels(model: Model) -> Model:
    contract = Model.model_validate(
        {"metadata": {}, "spec": {"source": {"uri": "s3://a/b"}, "contract": {"output": {"labels": ["x", "y"]}}}}
        | {"metadata": {"name": "m"}}
    ).spec.contract
    return model.model_copy(update={"spec": model.spec.model_copy(update={"contract": contract})})


def plan(given: Endpoint, *models: Model, seen: Observation | None = None) -> Plan:
    return endpoints.plan(given, models, seen or Observation(), START)


def of(decided: Plan) -> tuple[ShadowStatus, ...]:
    assert isinstance(decided.status, EndpointStatus)
    return decided.status.shadows


def counted(**sources: Mapping[str, Counts]) -> Observation:
    return Observation(route=RouteObserved((), counts=sources))


def test_models_that_serve_get_copies_and_others_are_told() -> None:
    decided = plan(endpoint(), named("a"), with_labels(named("next")))
    assert isinstance(decided.route, Split)
    assert decided.route.shadows == (Shadow("next", 1_000, '{"output": {"labels": true}, "tolerance": 0.01}'),)
    assert [(one.model, one.message) for one in of(decided)] == [("next", ""), ("other", "model other does not exist")]
    assert decided.look_again_s == shadows.LOOK_S
    assert decided.status is not None
    ready, accepted = decided.status.conditions
    assert (ready.reason, accepted.reason) == ("Serving", "PartlyActedOn")
    assert "spec.shadow (model other does not exist)" in accepted.message


def test_without_shadows_nothing_is_looked_at_again() -> None:
    decided = plan(endpoint([]), named("a"))
    assert (decided.look_again_s, of(decided)) == (None, ())


def test_counts_of_all_routers_are_added_up_also_when_one_begins_anew_or_is_not_heard_for_a_while() -> None:
    told = [
        counted(r1={"next": Counts(10, agreed=7, disagreed=1)}, r2={"next": Counts(5, agreed=5), "gone": Counts(9)}),
        counted(r1={"next": Counts(12, agreed=8, disagreed=2)}),
        counted(),
        counted(r1={"next": Counts(12, agreed=8, disagreed=2)}, r2={"next": Counts(6, agreed=5, disagreed=1)}),
        counted(r1={"next": Counts(1, agreed=1)}, r3={"next": Counts(100)}),
    ]
    found, status = [], None
    for seen in told:
        decided = plan(endpoint(status=status), named("a"), named("next"), seen=seen)
        assert isinstance(decided.status, EndpointStatus)
        status = decided.status
        found.append(next((one.copied, one.compared, one.agreed) for one in status.shadows))
    assert found == [(15, 13, 12), (17, 15, 13), (17, 15, 13), (18, 16, 13), (119, 17, 14)]
    assert of(plan(endpoint([{"model": "other"}], status), named("a")))[0].copied == 0


def test_where_nothing_copies_requests_the_field_is_named_with_the_reason() -> None:
    def accepted(decided: Plan) -> str:
        assert decided.status is not None
        return next(c.message for c in decided.status.conditions if c.type == "Accepted")

    behind = plan(endpoint(), named("a"), named("next"), seen=Observation(gateway="Gateway g"))
    assert isinstance(behind.route, Split)
    assert behind.route.shadows == ()
    said = "endpoint reader: this version stores, but does not act on: spec.shadow "
    assert accepted(behind) == f"{said}(Gateway g has no requests copied)"
    model = named("a")
    foreign = model.model_copy(update={"spec": model.spec.model_copy(update={"runtime": "triton"})})
    assert (
        accepted(plan(endpoint(), foreign, named("next"), named("other")))
        == f"{said}(the runtime of model a makes no copies)"
    )
