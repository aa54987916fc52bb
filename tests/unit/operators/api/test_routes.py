from __future__ import annotations

import json
from typing import Any

import pytest

from operators.actuators.kubernetes import makers
from operators.api import routes
from operators.api.contract import Detections
from operators.api.endpoint import Assignment
from operators.api.errors import InvalidObject
from operators.api.outcomes import Tally, Told
from operators.api.plan import Arm, Counts, Mirror, Outcomes, Route, RouteObserved, Shadow, Split

DETECTIONS = json.dumps({"output": {"detections": Detections(joints=17).to_dict()}}, sort_keys=True)
NEW, OLD = Arm("digits-new-a", "new", "a", 9_000), Arm("digits-old-a", "old", "a", 1_000)


@pytest.mark.parametrize(
    "route",
    [
        Route("ns", "digits", (NEW, OLD)),
        Route("ns", "digits", (), "nothing serves it"),
        Route("ns", "digits", (NEW, OLD), observe=True),
        Route("ns", "digits", (NEW, OLD), mirror=Mirror("new", 100, "{}")),
        Route("ns", "digits", (NEW, OLD), mirror=Mirror("new", 100, '{"output": {"labels": true}, "tolerance": 0.01}')),
        Route("ns", "digits", (NEW, OLD), mirror=Mirror("new", 100, DETECTIONS)),
        Route("ns", "digits", (NEW, OLD), max_concurrent=8),
        Route("ns", "digits", (NEW, OLD), observe=True, feedback=True),
        Route("ns", "digits", (NEW, OLD), assignment=Assignment(header="X-Tenant", cookie="session_id")),
        Split("ns", "reader", (("digits", 9_000), ("wide", 1_000)), Assignment(header="X-User")),
        Split("ns", "reader", (("digits", 10_000),), None, {"control": "digits", "new": "wide"}),
        Split("ns", "reader", (("digits", 10_000),), shadows=(Shadow("next", 500, "{}"), Shadow("b", 1, DETECTIONS))),
        Split("ns", "reader", ()),
        Split("ns", "reader", (("a", 5_000), ("a", 5_000)), None, {"x": "a", "y": "a"}, share_arms=("x", "y")),
        Split("ns", "reader", (("a", 10_000),), None, {"x": "a"}, Outcomes("1a2b", "clicks", ("x", "y"), False)),
    ],
)
def test_a_route_is_read_as_it_was_written(route: Route | Split) -> None:
    name = makers.route_name("Model" if isinstance(route, Route) else "Endpoint", route.name)
    written = {"metadata": {"namespace": route.namespace, "name": name}, "data": routes.route_data(route)}
    assert routes.route(written) == route


def config_map(name: str = "digits-route", text: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name}, "data": {"route.json": text}}


def with_arm(**part: Any) -> dict[str, Any]:
    arm = {"workload": "digits-new-a", "revision": "new", "variant": "a", "weight": 10_000} | part
    return config_map(text=json.dumps({"arms": [arm]}))


def with_mirror(**part: Any) -> dict[str, Any]:
    mirror = {"revision": "new", "weight": 100, "compare": {}} | part
    return config_map(text=json.dumps({"arms": [], "mirror": mirror}))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (config_map("digits"), "its name is none of a route; delete it"),
        (config_map("a.b-route"), "its name is none of a route; delete it"),
        (config_map(text="no json"), "route.json: Invalid JSON: expected ident at line 1 column 2"),
        ({"metadata": {"namespace": "ns", "name": "digits-route"}}, "route.json: Invalid JSON: EOF while parsing"),
        (with_arm(workload="other:a/x"), "arms.0.workload: String should match pattern"),
        (with_arm(revision="r1\nadd server"), "arms.0.revision: String should match pattern"),
        (with_arm(variant="a/b"), "arms.0.variant: String should match pattern"),
        (with_mirror(revision="b/r2|x"), "mirror.revision: String should match pattern"),
        (with_mirror(weight=10_001), "mirror.weight: Input should be less than or equal to 10000"),
        (with_mirror(compare={"tolerance": -1}), "mirror.compare.tolerance: Input should be greater than or equal to"),
        (
            with_mirror(compare={"output": {"detections": {"most": 10**9}}}),
            "mirror.compare.output.detections.most: Input should be less than or equal to 1000",
        ),
        (
            config_map(text='{"arms": [], "max_concurrent": "8 } deny"}'),
            "max_concurrent: Input should be a valid integer",
        ),
        (with_arm(weight=-1), "arms.0.weight: Input should be greater than or equal to 0"),
        (
            config_map("e-split", '{"shares": [], "assignment": {"header": "x }\\n"}}'),
            "assignment.header: String should",
        ),
        (config_map("e-split", '{"shares": [], "assignment": {"cookie": "a b"}}'), "assignment.cookie: String should"),
        (config_map("e-split", '{"shares": [], "names": {"a": "M/x"}}'), "names.a: String should match pattern"),
        (
            config_map("e-split", '{"shares": [], "shadows": [{"model": "a|b", "weight": 1, "compare": {}}]}'),
            "shadows.0.model: String should match pattern",
        ),
        (
            config_map(
                "e-split",
                '{"shares": [], "outcomes": {"experiment": "1", "metric": "m", "arms": ["a"], "assigns": true}}',
            ),
            "route.json: Value error, outcomes of 1 arms are assigned, and there are 0 shares",
        ),
        (config_map("e-split", '{"shares": [["M/x", 10000]]}'), "shares.0.0: String should match pattern"),
    ],
)
def test_what_could_get_elsewhere_by_its_name_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidObject) as found:
        routes.route(given)
    assert str(found.value).startswith(f"ConfigMap ns/{given['metadata']['name']}: {problem}")


def test_a_field_that_a_later_version_adds_is_passed_over() -> None:
    assert routes.route(config_map(text='{"arms": [], "message": "m", "shadow": 1}')) == Route("ns", "digits", (), "m")


@pytest.mark.parametrize(
    ("seen", "told", "read"),
    [
        (
            RouteObserved((NEW, OLD), {"digits-new-a": 7, "digits-old-a": 1}),
            '{"arms":[["digits-new-a","new","a",9000],["digits-old-a","old","a",1000]]}',
            RouteObserved((NEW, OLD), {"digits-new-a": 0, "digits-old-a": 0}),
        ),
        (
            RouteObserved((NEW,), {"digits-new-a": 7, "digits-old-a": 3}),
            '{"arms":[["digits-new-a","new","a",9000]],"busy":["digits-old-a"]}',
            RouteObserved((NEW,), {"digits-new-a": 0, "digits-old-a": 1}),
        ),
        (RouteObserved(()), '{"arms":[]}', RouteObserved(())),
    ],
)
def test_a_report_says_who_is_busy_only_of_those_that_are_to_end(
    seen: RouteObserved, told: str, read: RouteObserved
) -> None:
    report = routes.report("system", "router-1", "uid", {("ns", "digits"): seen})
    assert report["data"] == {"ns.digits": told}
    assert routes.reported(report, "ns", "digits") == read
    assert routes.reported(report, "ns", "wide") is None


COUNTED = RouteObserved(
    (NEW, OLD),
    {"digits-new-a": 0, "digits-old-a": 0},
    counts={
        "8@170": {
            "digits-new-a": Counts(
                12,
                2,
                {1100: 9, 13_000: 1},
                {"10.0.0.1:8080": (11, 1)},
                {"10.0.0.1:8080": {1100: 9, 13_000: 1}},
            ),
            "digits-old-a": Counts(agreed=5, disagreed=1),
        }
    },
    read_s={"8@170": 12.5},
)


def test_what_several_routers_counted_stands_side_by_side_each_under_its_own_name() -> None:
    seen = [
        routes.reported(routes.report("system", pod, "uid", {("ns", "digits"): COUNTED}), "ns", "digits")
        for pod in ("router-1", "router-2")
    ]
    [counts] = COUNTED.counts.values()
    names = ("router-1/8@170", "router-2/8@170")
    both = routes.together(seen)
    assert both is not None
    assert (both.counts, both.read_s) == (dict.fromkeys(names, counts), dict.fromkeys(names, 12.5))


@pytest.mark.parametrize(
    "counts",
    [
        [],
        {"router-2/8@170": [1, {}]},
        {"8@170": [float("inf"), {}]},
        {"8@170": [1, {"Other/a": [0, 0, [], {}]}]},
        {"8@170": [1, {"digits-new-a": [-1, 0, [], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 2, [], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [1200, 1], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [1100, 2], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [1100, -(10**30), 1], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [1100, *(0,) * 200], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [1100, "1"], {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, {"1100": 1}, {}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [], {"a b": [0, []]}]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, []]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [], {}, [1]]}]},
        {"8@170": [1, {"digits-new-a": [1, 0, [], {}, [1, -1]]}]},
        {"8@170": [1, {"digits-new-a": [10**30, 0, [], {}]}]},
    ],
)
def test_counts_that_no_router_of_ours_writes_are_not_known_and_the_arms_are(counts: object) -> None:
    report = routes.report("system", "router-1", "uid", {("ns", "digits"): RouteObserved((NEW,))})
    told = json.loads(report["data"]["ns.digits"]) | {"counts": counts}
    report["data"]["ns.digits"] = json.dumps(told)
    assert routes.reported(report, "ns", "digits") == RouteObserved((NEW,), {"digits-new-a": 0})


OUTCOMES = RouteObserved((), outcomes={"8@170": Told("1a2b", {"control": Tally.of(0.5, 2, 0.25)})})


def test_what_clients_report_reaches_the_operator_by_the_router_that_counted_it() -> None:
    report = routes.report("system", "router-1", "uid", {("ns", "reader"): OUTCOMES})
    seen = routes.together([routes.reported(report, "ns", "reader"), None])
    assert seen is not None
    assert seen.outcomes == {"router-1/8@170": OUTCOMES.outcomes["8@170"]}


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"router-2/8@170": ["1a2b", {}]},
        {"8@170": ["no", {}]},
        {"8@170": ["1a2b", {"Control": [0.0] * 12}]},
        {"8@170": ["1a2b", {"control": [0.0] * 11}]},
        {"8@170": ["1a2b", {"control": [float("inf")] * 12}]},
    ],
)
def test_outcomes_that_no_router_of_ours_writes_are_not_known(said: object) -> None:
    report = routes.report("system", "router-1", "uid", {("ns", "reader"): RouteObserved(())})
    report["data"]["ns.reader"] = json.dumps({"arms": [], "outcomes": said})
    assert routes.reported(report, "ns", "reader") == RouteObserved(())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arms": [["only"]]}', '{"arms": 1}'])
def test_a_report_that_cannot_be_read_says_nothing(text: str) -> None:
    assert routes.reported({"metadata": {}, "data": {"ns.digits": text}}, "ns", "digits") is None


def test_a_report_names_the_models_that_changed() -> None:
    before, after = {"data": {"ns.a": "1", "ns.b": "1", "ns.c": "1"}}, {"data": {"ns.b": "2", "ns.c": "1", "ns.d": "1"}}
    assert sorted(routes.changed(before, after)) == [("ns", "a"), ("ns", "b"), ("ns", "d")]
    assert sorted(routes.changed(None, after)) == [("ns", "b"), ("ns", "c"), ("ns", "d")]
    assert sorted(routes.changed(before, None)) == [("ns", "a"), ("ns", "b"), ("ns", "c")]
    assert sorted(routes.changed(before, before)) == []
