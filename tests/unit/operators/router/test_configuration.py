from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

import pytest

from operators.api.endpoint import Assignment
from operators.api.plan import Arm, Mirror, Route, Split
from operators.router.configuration import RARE, Listen, map_text, maps, pods, servers, structure, text
from operators.router.table import Server, Table, successor
from serving.contract import (
    ARM_HEADER,
    MIRROR_HEADER,
    REVISION_HEADER,
    VARIANT_HEADER,
)

LISTEN = Listen("127.0.0.1", 8080, 9000)
CATALOG = Server("127.0.0.1", 7000, 0, True)
OURS = Server("127.0.0.1", 8001, 9001, True)
FOREIGN = Server("127.0.0.1", 8002, 9002, False)
TABLE = successor(
    Table(),
    [
        Route("default", "m", (Arm("m-r1", "r1", "fp32", 9_500), Arm("m-r2", "r2", "int8", 500))),
        Route("team", "gone", (), "not yet: 50 %"),
        Split(
            "default",
            "e",
            (("m", 2_500), ("n", 7_500)),
            Assignment(header="X-User"),
            {"new": "m"},
            share_arms=("new", "old"),
        ),
    ],
    {"default/m-r1": (OURS,), "default/m-r2": (FOREIGN,)},
    CATALOG,
)


def test_maps_hold_all_that_changes_at_run_time() -> None:
    assert maps(TABLE) == {
        "routes.map": {"default/m": "9500", "team/gone": "-1", "default/e": "-2"},
        "reasons.map": {"team/gone": base64.b64encode(b"not yet: 50 %").decode()},
        "arms.map": {"default:m:a": "m-r1/r1/fp32/h1", "default:m:b": "m-r2/r2/int8/h2"},
        "names.map": {"0A016D": "default/m", "0A0165": "default/e"},
        "edges.map": {"default/e/0": "2500", "default/e/1": "10000"},
        "shares.map": {"default/e/0": "default/m/new", "default/e/1": "default/n/old"},
        "sticky.map": {"default/e": "x-user/"},
        "salts.map": {},
        "forced.map": {
            "default/m/r1/fp32": "default:m:a",
            "default/m/r1/": "default:m:a",
            "default/m//fp32": "default:m:a",
            "default/m/r2/int8": "default:m:b",
            "default/m/r2/": "default:m:b",
            "default/m//int8": "default:m:b",
            "default/e/new": "default/m/new",
        },
        "counted.map": {},
        "mirror.map": {},
        "outcomes.map": {},
        "shadows.map": {},
        "spent.map": {},
    }


def test_what_is_counted_is_said_by_a_map_and_so_no_reload() -> None:
    arms = (Arm("m-r1", "r1", "fp32", 10_000),)
    asked, not_asked = (
        successor(Table(), [Route("default", "m", arms, observe=observe)], {}, None) for observe in (True, False)
    )
    assert maps(asked)["counted.map"] == {"default/m": "1"}
    assert structure(asked, LISTEN) == structure(not_asked, LISTEN)


def test_requests_of_the_arm_beside_the_one_that_gets_copies_are_copied_and_that_is_said_by_a_map() -> None:
    arms = (Arm("m-r1", "r1", "fp32", 10_000), Arm("m-r2", "r2", "fp32", 0))
    mirror = Mirror("r2", 1_000, '{"output": {"labels": true}}')
    asked, not_asked = (
        successor(Table(), [Route("default", "m", arms, mirror=found)], {}, None) for found in (mirror, None)
    )
    place, said = next(iter(maps(asked)["mirror.map"].items()))
    *to, what = said.split("|")
    assert (place, to, json.loads(base64.urlsafe_b64decode(what))) == (
        "default:m:a",
        ["1000", "default:m:b/r2", "m-r2/default:m:b"],
        {"revision": "r2", "compare": {"output": {"labels": True}}},
    )
    assert maps(not_asked)["mirror.map"] == {}
    assert structure(asked, LISTEN) == structure(not_asked, LISTEN)


def test_a_server_is_the_same_by_the_names_that_both_protocols_have_for_it() -> None:
    assert pods(TABLE) == {
        "m-r1:127.0.0.1:8001": "127.0.0.1:8001",
        "m-r1:127.0.0.1:9001": "127.0.0.1:8001",
        "m-r2:127.0.0.1:8002": "127.0.0.1:8002",
        "m-r2:127.0.0.1:9002": "127.0.0.1:8002",
    }


@pytest.mark.parametrize(
    ("servers_of", "message", "reasons"),
    [
        ({}, "hangs", {"default/m": base64.b64encode(b"hangs").decode()}),
        ({}, "", {}),
        ({"default/m-r1": (OURS,)}, "hangs", {}),
        ({"default/m-r0": (OURS,)}, "hangs", {"default/m": base64.b64encode(b"hangs").decode()}),
    ],
)
def test_arms_none_of_whose_servers_is_there_are_explained_where_a_reason_is_known(
    servers_of: dict[str, tuple[Server, ...]], message: str, reasons: dict[str, str]
) -> None:
    arms = (Arm("m-r1", "r1", "fp32", 10_000), Arm("m-r0", "r0", "fp32", 0))
    table = successor(Table(), [Route("default", "m", arms, message)], servers_of, CATALOG)
    assert maps(table)["reasons.map"] == reasons


def test_every_place_has_its_servers_once_for_each_protocol() -> None:
    empty: dict[str, str] = {}
    assert servers(TABLE) == {
        "default:m:a:h1": {"m-r1:127.0.0.1:8001": "127.0.0.1:8001"},
        "default:m:a:h2": {"m-r1:127.0.0.1:9001": "127.0.0.1:9001 proto h2"},
        "default:m:b:h1": {"m-r2:127.0.0.1:8002": "127.0.0.1:8002"},
        "default:m:b:h2": {"m-r2:127.0.0.1:9002": "127.0.0.1:9002 proto h2"},
        **{f"team:gone:{place}:{protocol}": empty for place in "ab" for protocol in ("h1", "h2")},
    }


def test_an_address_of_ipv6_is_in_brackets() -> None:
    six = Server("fd00::1", 8001, 9001, True)
    table = successor(
        Table(), [Route("default", "m", (Arm("m-r1", "r1", "a", 10_000),))], {"default/m-r1": (six,)}, None
    )
    assert servers(table)["default:m:a:h2"] == {"m-r1:fd00::1:9001": "[fd00::1]:9001 proto h2"}
    assert "  bind [::]:8080\n" in text(table, Listen("::", 8080, 9000))


def test_https_is_bound_as_soon_as_there_is_a_certificate() -> None:
    def binds(listen: Listen) -> list[str]:
        return [line.strip() for line in text(Table(), listen).splitlines() if line.startswith("  bind 127")]

    http, grpc = "bind 127.0.0.1:8080", "bind 127.0.0.1:9000 proto h2"
    assert binds(Listen("127.0.0.1", 8080, 9000, 8443)) == [http, grpc]
    assert binds(Listen("127.0.0.1", 8080, 9000, 8443, certificate="tls-1.pem")) == [
        http,
        grpc,
        "bind 127.0.0.1:8443 ssl crt tls-1.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2",
    ]


def test_an_endpoint_none_of_whose_models_serves_says_so() -> None:
    found = maps(successor(Table(), [Split("default", "e", ())], {}, None))
    assert (found["routes.map"], found["reasons.map"]) == (
        {"default/e": "-1"},
        {"default/e": base64.b64encode(b"no model of endpoint default/e serves").decode()},
    )


def test_only_names_change_the_structure() -> None:
    def with_routes(*routes: Route | Split, of: dict[str, tuple[Server, ...]] | None = None) -> str:
        return structure(successor(TABLE, routes, of or {}, CATALOG), LISTEN)

    before = with_routes(Route("default", "m", (Arm("m-r1", "r1", "fp32", 10_000),)))
    assert before == with_routes(
        Route("default", "m", (Arm("m-r1", "r1", "fp32", 1), Arm("m-r9", "r9", "int8", 9_999))),
        of={"default/m-r1": (OURS,)},
    )
    assert before == with_routes(Route("default", "m", (), "nothing"))
    assert before != with_routes(Route("default", "other", (), "nothing"))
    assert before != structure(TABLE, LISTEN)


def test_who_limits_nothing_pays_for_no_look_at_what_is_under_way() -> None:
    arms = (Arm("m-r1", "r1", "fp32", 10_000),)
    limited, unlimited = (
        text(successor(Table(), [Route("default", "m", arms, max_concurrent=most)], {}, None), LISTEN)
        for most in (8, None)
    )
    assert ("be_conn" in unlimited, limited.count("{ var(txn.h1),add(txn.h2) gt 8 }")) == (False, 8)


def test_a_model_that_has_had_a_second_server_is_one_whose_requests_get_a_second_try() -> None:
    def after(before: Table, *servers: Server) -> Table:
        return successor(
            before, [Route("default", "m", (Arm("m-r1", "r1", "a", 10_000),))], {"default/m-r1": servers}, None
        )

    one = after(Table(), OURS)
    two = after(one, OURS, FOREIGN)
    assert ["  retries 1" in text(table, LISTEN).splitlines() for table in (one, two)] == [False, True]
    assert structure(two, LISTEN) == structure(after(two, OURS), LISTEN) == structure(after(two), LISTEN)


def test_the_file_names_its_structure_and_starts_with_the_servers_of_now() -> None:
    lines = [line.strip() for line in text(TABLE, LISTEN).splitlines()]
    assert f"description {structure(TABLE, LISTEN)}" in lines
    assert [line for line in lines if line.startswith("server ")] == [
        "server self unix@copies.sock",
        "server catalog 127.0.0.1:7000",
        "server agent unix@outcomes.sock maxconn 16",
        "server m-r1:127.0.0.1:8001 127.0.0.1:8001",
        "server m-r1:127.0.0.1:9001 127.0.0.1:9001 proto h2",
        "server m-r2:127.0.0.1:8002 127.0.0.1:8002",
        "server m-r2:127.0.0.1:9002 127.0.0.1:9002 proto h2",
    ]
    assert [line for line in lines if line.startswith("bind ")] == [
        "bind 127.0.0.1:8080",
        "bind 127.0.0.1:9000 proto h2",
        "bind unix@copies.sock mode 600",
    ]


def test_what_few_requests_ask_for_is_looked_for_once_and_costs_the_others_no_rule() -> None:
    names = (REVISION_HEADER, VARIANT_HEADER, ARM_HEADER, MIRROR_HEADER)
    assert all(name.startswith(RARE) for name in names)
    rules = [line.strip() for line in text(TABLE, LISTEN).splitlines() if line.startswith("  http-request")]
    ordinary = rules[: rules.index("http-request allow if !rare")]
    asking = [rule for rule in ordinary for name in names if f"({name})" in rule]
    assert {rule.rpartition(" if ")[2] for rule in asking} == {"rare", "rare split"}


def test_a_map_file_has_a_line_for_each_entry() -> None:
    assert map_text({"b": "2", "a": "1"}) == "a 1\nb 2\n"


def test_a_compressed_message_is_unpacked_by_the_catalog_where_haproxy_has_lua_and_there_is_a_catalog() -> None:
    rule = "  http-request lua.unpack http://127.0.0.1:7000/penstock/grpc-head"
    lines = text(TABLE, LISTEN).splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith(rule)]
    assert lines[at - 2].strip() == ".if feature(LUA)"
    without = text(Table(), LISTEN)
    assert "lua.unpack" not in without
    [file] = [line.split()[1] for line in without.splitlines() if line.strip().startswith("lua-load-per-thread")]
    assert Path(file).is_file()


def test_a_grpc_call_to_an_endpoint_tells_the_server_which_of_its_models_is_meant() -> None:
    rules = [line for line in text(TABLE, LISTEN).splitlines() if "set-header penstock-alias" in line]
    assert rules == [
        "  http-request set-header penstock-alias %[var(txn.key),field(2,/)]/%[var(txn.model),field(2,/)] if split grpc"
    ]


def test_calls_of_an_arm_whose_servers_are_all_gone_still_go_where_every_engine_takes_them() -> None:
    """Its last servers may be left in the backends for a moment, and not every engine takes gRPC where REST is."""
    gone = dataclasses.replace(TABLE, servers={})
    assert set(maps(gone)["arms.map"].values()) == {"m-r1/r1/fp32/h2", "m-r2/r2/int8/h2"}
