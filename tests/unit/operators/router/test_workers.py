from __future__ import annotations

import dataclasses

from operators.api.plan import Arm, Counts, Route
from operators.router.configuration import maps, servers
from operators.router.counting import Counted
from operators.router.ejection import Tally
from operators.router.table import Server, Table, successor
from operators.router.workers import ServerSeen, Worker, commands, parse_backends, parse_map

ONE, TWO = Server("127.0.0.1", 8001, 9001, True), Server("127.0.0.1", 8002, 9002, True)
R1 = successor(Table(), [Route("default", "m", (Arm("m-r1", "r1", "fp32", 10_000),))], {"default/m-r1": (ONE,)}, None)
R2 = successor(R1, [Route("default", "m", (Arm("m-r2", "r2", "fp32", 10_000),))], {"default/m-r2": (TWO,)}, None)


def worker(table: Table, **seen: ServerSeen) -> Worker:
    """A worker that has ``table``, with ``seen`` instead of an idle enabled server where it is given by its port."""
    backends = {
        backend: {name: seen.get(f"p{name.rpartition(':')[2]}", ServerSeen(0, True)) for name in of}
        for backend, of in servers(table).items()
    }
    return Worker(maps(table), backends)


def missing(seen: Worker, table: Table) -> list[str]:
    return commands(seen, maps(table), servers(table))


def after(seen: Worker, table: Table) -> Worker:
    """What the worker reports once the maps and new servers of ``table`` have arrived."""
    backends = {
        backend: {**of, **{name: ServerSeen(0, True) for name in servers(table)[backend]}}
        for backend, of in seen.backends.items()
    }
    return Worker(maps(table), backends)


def test_a_worker_that_has_the_table_needs_nothing() -> None:
    assert [missing(worker(table), table) for table in (R1, R2)] == [[], []]


def test_a_switch_adds_servers_then_names_the_arm_then_moves_the_traffic() -> None:
    found = missing(worker(R1), R2)
    gone = {f"del map forced.map default/m/r1/{variant}" for variant in ("", "fp32")}
    assert gone < set(found)
    assert [command for command in found if command not in gone] == [
        "add server default:m:b:h1/m-r2:127.0.0.1:8002 127.0.0.1:8002",
        "enable server default:m:b:h1/m-r2:127.0.0.1:8002",
        "add server default:m:b:h2/m-r2:127.0.0.1:9002 127.0.0.1:9002 proto h2",
        "enable server default:m:b:h2/m-r2:127.0.0.1:9002",
        "add map arms.map default:m:b m-r2/r2/fp32/h1",
        "del map arms.map default:m:a",
        "add map forced.map default/m/r2/fp32 default:m:b",
        "add map forced.map default/m/r2/ default:m:b",
        "set map forced.map default/m//fp32 default:m:b",
        "set map routes.map default/m 0",
    ]


def test_old_servers_leave_after_the_traffic_and_are_deleted_when_they_have_answered() -> None:
    switched = after(worker(R1), R2)
    assert missing(switched, R2) == [
        "set server default:m:a:h1/m-r1:127.0.0.1:8001 state maint",
        "set server default:m:a:h2/m-r1:127.0.0.1:9001 state maint",
    ]
    leaving = {"m-r1:127.0.0.1:8001": ServerSeen(3, False)}, {"m-r1:127.0.0.1:9001": ServerSeen(0, False)}
    busy = Worker(switched.maps, {**switched.backends, "default:m:a:h1": leaving[0], "default:m:a:h2": leaving[1]})
    assert missing(busy, R2) == ["del server default:m:a:h2/m-r1:127.0.0.1:9001"]


def test_a_server_that_came_back_is_enabled_again() -> None:
    assert missing(worker(R1, p8001=ServerSeen(0, False)), R1) == ["enable server default:m:a:h1/m-r1:127.0.0.1:8001"]


def test_a_server_that_is_left_out_gets_no_requests_and_comes_back() -> None:
    which = "default:m:a:h1", "m-r1:127.0.0.1:8001"
    out = worker(R1, p8001=ServerSeen(0, True, left_out=True))
    found = [commands(seen, maps(R1), servers(R1), left) for seen in (worker(R1), out) for left in ({which}, ())]
    name = "/".join(which)
    assert found == [[f"set server {name} state drain"], [], [], [f"set server {name} state ready"]]


def test_a_replica_that_leaves_a_place_with_traffic_leaves_at_once() -> None:
    both = successor(
        R1, [Route("default", "m", (Arm("m-r1", "r1", "fp32", 10_000),))], {"default/m-r1": (ONE, TWO)}, None
    )
    assert missing(worker(both), R1) == [
        "set server default:m:a:h1/m-r1:127.0.0.1:8002 state maint",
        "set server default:m:a:h2/m-r1:127.0.0.1:9002 state maint",
    ]


def test_in_flight_counts_whoever_has_traffic_or_requests() -> None:
    switched = after(worker(R1, p8001=ServerSeen(2, True), p9001=ServerSeen(1, True)), R2)
    idle = after(worker(R1), R2)
    assert switched.in_flight("default:m") == {"m-r1": 3, "m-r2": 0}
    assert idle.in_flight("default:m") == {"m-r2": 0}
    assert idle.in_flight("default:other") == {}


def test_arms_that_are_counted_begin_at_zero_and_those_that_are_not_are_unknown() -> None:
    route = Route("default", "m", (Arm("m-r1", "r1", "fp32", 9_000), Arm("m-r2", "r2", "fp32", 1_000)), observe=True)
    seen = worker(successor(Table(), [route], {}, None))
    counts = Counted({("default:m", "m-r2"): Counts(1, 0), ("default:n", "n-r1"): Counts(2, 0)})
    seen = dataclasses.replace(seen, counts=counts)
    assert seen.counted("default", "m") == {"m-r1": Counts(), "m-r2": Counts(1, 0)}
    assert seen.counted("default", "n") == {}


def test_answers_of_haproxy_are_read_as_it_writes_them() -> None:
    rest, answers = ",0," + "," * 7 + "1,2,3,,", "," * 22 + "10,20,30,40,50,,"
    answer = "\n".join(
        [
            "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,",
            f"catalog,BACKEND,0,0,0{rest}UP,",
            f"default:m:a:h1,m-r1:127.0.0.1:8001,0,0,7{rest}no check{answers}",
            f"default:m:a:h1,m-r1:127.0.0.1:8002,0,0,0{rest}MAINT{answers}",
            f"default:m:a:h1,m-r1:127.0.0.1:8003,0,0,0{rest}DRAIN{answers}",
            f"default:m:a:h1,BACKEND,0,0,7{rest}UP,",
            f"default:m:b:h1,BACKEND,0,0,0{rest}UP,",
            "",
        ]
    )
    assert parse_backends(answer) == {
        "default:m:a:h1": {
            "m-r1:127.0.0.1:8001": ServerSeen(7, True, False, Tally(100, 53, 3)),
            "m-r1:127.0.0.1:8002": ServerSeen(0, False, False, Tally(100, 53, 3)),
            "m-r1:127.0.0.1:8003": ServerSeen(0, True, True, Tally(100, 53, 3)),
        },
        "default:m:b:h1": {},
    }
    assert parse_map("0x2be9 ns/m 10000\n0x2bea ns/n a value\n\n") == {"ns/m": "10000", "ns/n": "a value"}
    assert parse_map("Unknown map identifier. Please use #<id> or <file>.\n") == {}
