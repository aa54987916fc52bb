from __future__ import annotations

from operators.api.plan import Arm, Outcomes, Route, Split
from operators.router import outcomes
from operators.router.configuration import Listen, maps, structure
from operators.router.table import Table, successor

LISTEN = Listen("127.0.0.1", 8080, 9000)
SHARES = (("m", 2_500), ("n", 7_500))


def table(taken: Outcomes | None) -> Table:
    routes = [Route("default", name, (Arm(f"{name}-1", "1", "a", 10_000),)) for name in ("m", "n")]
    return successor(Table(), [*routes, Split("default", "e", SHARES, None, {}, taken)], {}, None)


def test_each_share_has_the_beginning_of_its_ids_while_units_are_assigned() -> None:
    taken = Outcomes("1a2b", "clicks", ("control", "new"))
    assert outcomes.maps(table(taken)) == {
        "outcomes.map": {"default/e/0": "control.2500.1a2b", "default/e/1": "new.7500.1a2b"}
    }
    assert outcomes.maps(table(Outcomes("1a2b", "clicks", ("control", "new"), assigns=False))) == {"outcomes.map": {}}
    assert outcomes.maps(table(None)) == {"outcomes.map": {}}


def test_endpoints_without_experiment_have_no_rules_for_ids_and_another_experiment_is_no_reload() -> None:
    none, first, second = (
        table(taken) for taken in (None, Outcomes("1", "a", ("control", "new")), Outcomes("2", "b", ("control", "new")))
    )
    assert not [rule for rule in outcomes.share_rules(none, "split")]
    assert structure(none, LISTEN) != structure(first, LISTEN) == structure(second, LISTEN)


def test_answers_of_a_model_name_an_id_only_where_users_are_asked_and_others_have_no_rule_for_it() -> None:
    def asked(**said: bool) -> Table:
        arms = (Arm("m-1", "1", "a", 10_000),)
        return successor(Table(), [Route("default", "m", arms, observe=True, **said)], {}, None)  # type: ignore[arg-type]

    assert [*outcomes.named(asked())] == []
    assert len([*outcomes.named(asked(feedback=True))]) == 1
    found = [maps(one)["counted.map"] for one in (asked(), asked(feedback=True))]
    assert found == [{"default/m": "1"}, {"default/m": "id"}]
