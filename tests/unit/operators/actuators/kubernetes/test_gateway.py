from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import gateway
from operators.actuators.kubernetes.gateway import Current, Seen
from operators.api.plan import Arm, Fetch, Key, Route, RouteObserved, Split, Workload
from operators.api.resources import Resources
from operators.planning import runtimes
from operators.runtime.resource import ObjectKey

WEB = ObjectKey("infra", "web")
OWNER = {"uid": "1"}
RUNTIME = runtimes.builtin("penstock-serve:test", "python")["onnxruntime"]
TOLD_BY = "the status of Gateway infra/web"


def workload(name: str) -> Workload:
    return Workload(name, "blue", "digits", "1", "fp32", Fetch("s3://m", "sha256:1"), RUNTIME, 1, Resources())


def arm(name: str, weight: int) -> Arm:
    return Arm(name, name.split("-")[1], "fp32", weight)


def made(*arms: Arm) -> tuple[dict[str, Any], dict[str, Any]]:
    return gateway.routes(Route("blue", "digits", arms), [workload(a.workload) for a in arms], WEB, OWNER)


def rewrite(how: str, to: str) -> dict[str, Any]:
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": how, how[0].lower() + how[1:]: to}}}


def test_a_model_is_reached_by_its_path_and_by_the_metadata_of_a_call() -> None:
    http, grpc = made(arm("digits-1-fp32", 9000), arm("digits-2-fp32", 1000))
    assert http == {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": "digits-route",
            "namespace": "blue",
            "labels": {"app.kubernetes.io/managed-by": "penstock", "penstock.dev/model": "digits"},
            "ownerReferences": [OWNER],
        },
        "spec": {
            "parentRefs": [{"namespace": "infra", "name": "web"}],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/blue/digits"}}],
                    "filters": [rewrite("ReplacePrefixMatch", "/")],
                    "backendRefs": [
                        {"name": "digits-1-fp32", "port": 8080, "weight": 9000},
                        {"name": "digits-2-fp32", "port": 8080, "weight": 1000},
                    ],
                }
            ],
        },
    }
    rule = {
        "matches": [{"headers": [{"name": "penstock-model", "value": "blue/digits"}]}],
        "backendRefs": [
            {"name": "digits-1-fp32", "port": 9000, "weight": 9000},
            {"name": "digits-2-fp32", "port": 9000, "weight": 1000},
        ],
    }
    assert grpc == {**http, "kind": "GRPCRoute", "spec": {**http["spec"], "rules": [rule]}}


def test_a_model_that_nothing_serves_has_routes_without_backends() -> None:
    assert [route["spec"]["rules"][0]["backendRefs"] for route in made()] == [[], []]


def test_whoever_waits_for_an_endpoints_route_is_known_by_what_it_sends_to() -> None:
    services: dict[tuple[str, str], dict[str, Any]] = {
        ("blue", "digits-1-fp32"): {"metadata": {"labels": {"penstock.dev/model": "digits"}}},
        ("blue", "other"): {"metadata": {"name": "other"}},
    }
    refs = [{"name": name, "port": 8080, "weight": 1} for name in ("digits-1-fp32", "other", "gone")]
    route = {"metadata": {"namespace": "blue", "name": "reader-split"}, "spec": {"rules": [{"backendRefs": refs}]}}
    found = gateway.models_behind(route, lambda namespace, name: services.get((namespace, name)))
    assert list(found) == [Key("Model", "blue", "digits")]


def test_an_endpoint_splits_by_share_and_arm_and_names_each_model_as_its_server_does() -> None:
    backends = {
        "digits": [{"name": "d1", "port": 8080, "weight": 9999}, {"name": "d2", "port": 8080, "weight": 1}],
        "wide": [{"name": "w1", "port": 8080, "weight": 10000}],
    }
    split = Split("blue", "reader", (("digits", 9000), ("wide", 1000), ("gone", 0)))
    route = gateway.split_route(split, backends, WEB, OWNER)
    shares = [("digits", "d1", 899910), ("digits", "d2", 90), ("wide", "w1", 100000)]

    def rule(path: str, how: str, to: str, match: str = "PathPrefix") -> dict[str, Any]:
        refs = [
            {"name": name, "port": 8080, "weight": weight, "filters": [rewrite(how, to.format(model))]}
            for model, name, weight in shares
        ]
        return {"matches": [{"path": {"type": match, "value": path}}], "backendRefs": refs}

    assert route["metadata"]["name"] == "reader-split"
    assert route["metadata"]["labels"]["penstock.dev/endpoint"] == "reader"
    assert route["spec"]["rules"] == [
        rule("/blue/reader/v2/models/reader", "ReplacePrefixMatch", "/v2/models/{}"),
        rule("/blue/reader/v1/models/reader", "ReplacePrefixMatch", "/v1/models/{}"),
        rule("/blue/reader/v1/models/reader:predict", "ReplaceFullPath", "/v1/models/{}:predict", "Exact"),
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/blue/reader"}}],
            "filters": [rewrite("ReplacePrefixMatch", "/")],
            "backendRefs": [{"name": name, "port": 8080, "weight": weight} for _, name, weight in shares],
        },
    ]


def told(
    route: dict[str, Any],
    *,
    generation: int = 1,
    observed: int | None = None,
    accepted: str = "True",
    resolved: str = "True",
    by: ObjectKey = WEB,
) -> dict[str, Any]:
    """``route`` as it is stored at ``generation``, with what a Gateway says of it."""
    says = {"observedGeneration": generation if observed is None else observed, "reason": "Why", "message": "because"}
    conditions = [{"type": t, "status": s, **says} for t, s in (("Accepted", accepted), ("ResolvedRefs", resolved))]
    parent = {"parentRef": {"namespace": by.namespace, "name": by.name}, "conditions": conditions}
    metadata = {**route["metadata"], "uid": route["kind"], "generation": generation}
    return {**route, "metadata": metadata, "status": {"parents": [parent]}}


HTTP = made(arm("digits-1-fp32", 10000))[0]
NOT_YET = (None, "Gateway infra/web has not taken up HTTPRoute digits-route yet")
REFUSED = "Gateway infra/web does not take up HTTPRoute digits-route: "


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (told(HTTP), (True, "")),
        (told(HTTP, generation=2, observed=1), NOT_YET),
        (told(HTTP, by=ObjectKey("infra", "other")), NOT_YET),
        ({**told(HTTP), "status": {}}, NOT_YET),
        (
            told(HTTP, accepted="False"),
            (
                False,
                f"{REFUSED}Accepted is False: Why because; it needs a listener that allows HTTPRoutes of namespace "
                "blue, and those alone",
            ),
        ),
        (told(HTTP, resolved="False"), (False, f"{REFUSED}ResolvedRefs is False: Why because")),
        (told(HTTP, generation=2, observed=1, accepted="False"), NOT_YET),
    ],
    ids=["taken up", "of before", "another gateway's word", "no word", "refused", "no backend", "refused before"],
)
def test_a_route_is_taken_up_when_its_gateway_says_so_of_what_it_asks_now(
    route: dict[str, Any], expected: tuple[bool | None, str]
) -> None:
    assert gateway.taken_up(route, WEB) == expected


OLD, NEW = arm("digits-1-fp32", 10000), arm("digits-2-fp32", 10000)
BEFORE = {"digits-1-fp32": OLD, "digits-2-fp32": arm("digits-2-fp32", 0)}
WAITS = "Gateway infra/web has taken up the routes, which its proxies get 5 s to follow"
STANDS = RouteObserved((OLD,), told_by=TOLD_BY)
MOVED = RouteObserved((NEW,), told_by=TOLD_BY)


def both(*arms: Arm, generation: int = 2, **said: Any) -> list[dict[str, Any]]:
    return [told(route, generation=generation, **said) for route in made(*arms)]


def generations(number: int) -> frozenset[tuple[str, int]]:
    return frozenset({("HTTPRoute", number), ("GRPCRoute", number)})


@pytest.mark.parametrize(
    ("own", "known", "expected"),
    [
        (both(NEW), Current(generations(1), 0), (Seen(STANDS, WAITS, 5), Current(generations(2), 100))),
        (both(NEW), Current(generations(2), 97), (Seen(STANDS, WAITS, 2), Current(generations(2), 97))),
        (both(NEW), Current(generations(2), 95), (Seen(MOVED), Current(generations(2), 95))),
        (both(NEW), None, (Seen(STANDS, WAITS, 5), Current(generations(2), 100))),
        (both(OLD), None, (Seen(STANDS), Current(generations(2), 95))),
        (both(OLD, generation=3), Current(generations(2), 99), (Seen(STANDS, WAITS, 5), Current(generations(3), 100))),
        (both(NEW, observed=1), Current(generations(1), 0), (Seen(STANDS, NOT_YET[1]), Current(None, 100))),
        (both(NEW, observed=1), Current(None, 50), (Seen(STANDS, NOT_YET[1]), Current(None, 50))),
        (both(NEW), Current(None, 50), (Seen(STANDS, WAITS, 5), Current(generations(2), 100))),
        (
            both(NEW, resolved="False"),
            Current(generations(1), 0),
            (Seen(message=f"{REFUSED}ResolvedRefs is False: Why because"), Current(None, 100)),
        ),
    ],
    ids=[
        "just taken up",
        "not settled",
        "settled",
        "an operator that comes into a change",
        "an operator that comes into a steady state",
        "back at once",
        "not taken up",
        "still not taken up",
        "taken up late",
        "refused",
    ],
)
def test_traffic_counts_as_moved_when_a_current_status_has_settled(
    own: list[dict[str, Any]], known: Current | None, expected: tuple[Seen, Current]
) -> None:
    assert gateway.observe(own, [], WEB, BEFORE, known, 100) == expected


def test_what_an_endpoint_still_sends_to_is_not_drained() -> None:
    split = gateway.split_route(
        Split("blue", "reader", (("digits", 10000),)), {"digits": [{"name": OLD.workload, "weight": 1}]}, WEB, OWNER
    )
    known = Current(generations(2) | {("HTTPRoute", 7)}, 0)
    seen, _ = gateway.observe(both(NEW), [told(split, generation=7)], WEB, BEFORE, known, 100)
    assert seen == Seen(RouteObserved((arm("digits-2-fp32", 10000), arm("digits-1-fp32", 0)), told_by=TOLD_BY))


@pytest.mark.parametrize(
    ("listeners", "addresses", "expected"),
    [
        ([("HTTP", 80, [])], ["192.0.2.1"], "http://192.0.2.1"),
        ([("HTTP", 8000, [])], ["gw.example"], "http://gw.example:8000"),
        ([("HTTP", 9000, ["GRPCRoute"]), ("HTTPS", 443, ["HTTPRoute"])], ["2001:db8::1"], "https://[2001:db8::1]"),
        ([("TLS", 443, [])], ["192.0.2.1"], ""),
        ([("HTTP", 80, [])], [], ""),
    ],
)
def test_the_url_is_the_first_address_and_the_listener_for_http_routes(
    listeners: list[tuple[str, int, list[str]]], addresses: list[str], expected: str
) -> None:
    spec = [
        {"protocol": protocol, "port": port, "allowedRoutes": {"kinds": [{"kind": kind} for kind in kinds]}}
        for protocol, port, kinds in listeners
    ]
    live = {"spec": {"listeners": spec}, "status": {"addresses": [{"value": address} for address in addresses]}}
    assert gateway.url(live) == expected
    assert gateway.url(None) == ""
