from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import makers
from operators.api import routes
from operators.api.plan import Arm, Route, Split
from operators.router import discovery
from operators.router.table import Places, Server, Table

READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}
ENDED = {"ready": False, "serving": False, "terminating": True}

R1, R2 = Arm("m-r1", "r1", "a", 10_000), Arm("m-r2", "r2", "a", 10_000)
CATALOG = Server("127.0.0.1", 8082, 8082, True)


def endpoint_slice(
    workload: str = "m-r1", /, family: str = "IPv4", over_http1: bool = True, **endpoints: dict[str, bool]
) -> dict[str, Any]:
    """``endpoints`` by the last part of their address."""
    labels = {"penstock.dev/workload": workload} | ({"penstock.dev/grpc-over-http1": "true"} if over_http1 else {})
    start = "10.88.0." if family == "IPv4" else "fd00::"
    return {
        "metadata": {"namespace": "ns", "name": f"{workload}-{family}", "labels": labels},
        "addressType": family,
        "ports": [{"name": "http", "port": 8080}, {"name": "h2c", "port": 9000}],
        "endpoints": [{"addresses": [start + name[1:]], "conditions": of} for name, of in endpoints.items()],
    }


def of_service(name: str) -> dict[str, Any]:
    found = endpoint_slice(_1=READY)
    found["metadata"]["labels"]["kubernetes.io/service-name"] = name
    return found


def server(host: str, over_http1: bool = True) -> Server:
    return Server(host, 8080, 9000, over_http1)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([], {}),
        ([endpoint_slice()], {}),
        ([endpoint_slice(_1=READY, _2=STARTING)], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([endpoint_slice(_1={})], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([endpoint_slice(_2=READY), endpoint_slice(_1=READY)], {"ns/m-r1": (server("10.88.0.1"), server("10.88.0.2"))}),
        ([endpoint_slice(_1=READY), endpoint_slice(_1=READY)], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([endpoint_slice(_1=READY, _2=ENDING)], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([endpoint_slice(_1=ENDING, _2=ENDED, _3=STARTING)], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([endpoint_slice(family="IPv6", _1=READY)], {"ns/m-r1": (server("fd00::1"),)}),
        ([endpoint_slice(over_http1=False, _1=READY)], {"ns/m-r1": (server("10.88.0.1", False),)}),
        ([endpoint_slice(_1=READY) | {"ports": [{"name": "http", "port": 8080}]}], {}),
        ([endpoint_slice(_1=READY) | {"ports": None}], {}),
        ([of_service("m-r1")], {"ns/m-r1": (server("10.88.0.1"),)}),
        ([of_service("m-r1-predictor")], {}),
        ([endpoint_slice(_1=READY) | {"addressType": "FQDN"}], {}),
        (
            [endpoint_slice("m-r1", _1=READY), endpoint_slice("m-r2", _2=READY)],
            {"ns/m-r1": (server("10.88.0.1"),), "ns/m-r2": (server("10.88.0.2"),)},
        ),
    ],
    ids=[
        "nothing",
        "no endpoints",
        "ready and starting",
        "no conditions",
        "two slices",
        "twice the same",
        "one is ending",
        "all are ending",
        "IPv6",
        "gRPC over HTTP/2 alone",
        "a port is missing",
        "no ports",
        "of our Service",
        "of somebody else's Service of the same pods",
        "host names",
        "two workloads",
    ],
)
def test_new_requests_go_to_servers_that_are_ready(
    slices: list[dict[str, Any]], expected: dict[str, tuple[Server, ...]]
) -> None:
    assert discovery.servers(slices) == expected


def config_map(route: Route | Split) -> dict[str, Any]:
    name = makers.route_name("Model" if isinstance(route, Route) else "Endpoint", route.name)
    return {"metadata": {"namespace": route.namespace, "name": name}, "data": routes.route_data(route)}


def after(before: Table, *config_maps: dict[str, Any], slices: list[dict[str, Any]]) -> Table:
    table, problems = discovery.table(before, config_maps, slices, CATALOG)
    assert problems == []
    return table


FIRST = after(Table(), config_map(Route("ns", "m", (R1,))), slices=[endpoint_slice("m-r1", _1=READY)])


def test_a_route_and_its_servers_make_the_table() -> None:
    table = Table({"ns/m": Places(R1)}, {}, {"ns/m-r1": (server("10.88.0.1"),)}, CATALOG)
    assert after(Table(), config_map(Route("ns", "m", (R1,))), slices=[endpoint_slice("m-r1", _1=READY)]) == table


def test_traffic_stays_where_it_was_until_the_next_arm_has_a_server_here() -> None:
    old, new = endpoint_slice("m-r1", _1=READY), endpoint_slice("m-r2", _2=READY)
    moved = config_map(Route("ns", "m", (R2,)))
    assert after(FIRST, moved, slices=[old, endpoint_slice("m-r2", _2=STARTING)]) == FIRST
    assert after(FIRST, moved, slices=[old, new]).models == {"ns/m": Places(b=R2)}
    assert after(FIRST, moved, slices=[]).models == {"ns/m": Places(b=R2)}, "nothing is lost by moving"
    assert after(Table(), moved, slices=[old]).models == {"ns/m": Places(R2)}
    nothing = config_map(Route("ns", "m", (), "no replicas"))
    assert after(FIRST, nothing, slices=[old]).models == {"ns/m": Places(message="no replicas")}


def test_a_route_that_cannot_be_read_leaves_its_model_and_all_others_as_they_are() -> None:
    split = config_map(Split("ns", "e", (("m", 10_000),)))
    slices = [endpoint_slice("m-r1", _1=READY)]
    before = after(FIRST, config_map(Route("ns", "m", (R1,))), split, slices=slices)
    heavy = config_map(Route("ns", "m", (Arm("m-r2", "r2", "a", 9_999),)))
    broken = split | {"data": {}}
    other = config_map(Route("ns", "other", (), "not yet"))
    stray = other | {"metadata": {"namespace": "ns", "name": "other"}}
    table, problems = discovery.table(before, [heavy, broken, other, stray], slices, CATALOG)
    assert table == Table(
        {"ns/m": Places(R1), "ns/other": Places(message="not yet")}, before.endpoints, before.servers, CATALOG
    )
    assert problems == [
        "ConfigMap ns/e-split: route.json: Invalid JSON: EOF while parsing a value at line 1 column 0; delete it, and "
        "the operator writes it anew; what it said before goes on",
        "ConfigMap ns/other: its name is none of a route; delete it",
        "route ns/m: weights [9999] do not add up to 10000; correct the weights; what it said before goes on",
    ]


def test_a_model_comes_before_an_endpoint_of_the_same_name() -> None:
    both = [config_map(Route("ns", "m", (R1,))), config_map(Split("ns", "m", (("other", 10_000),)))]
    table = after(Table(), *both, slices=[])
    assert (list(table.models), list(table.endpoints)) == (["ns/m"], [])
