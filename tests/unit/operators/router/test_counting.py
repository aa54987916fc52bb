from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from operators.api.plan import CELLS, Counts
from operators.router.counting import Counted, cells, parse

NETWORKS = {ipaddress.IPv4Network(network): int(edge) for network, edge in cells().items()}
ARM, M = "m-r1/default:m:a", ("default:m", "m-r1")
PODS = {f"m-r1:10.0.0.1:{port}": "10.0.0.1:8080" for port in (8080, 9000)}


@given(st.integers(0, 2**32 - 1) | st.sampled_from(CELLS) | st.sampled_from(CELLS).map(lambda edge: edge - 1))
def test_every_time_is_in_one_cell_and_that_is_the_one_whose_edge_is_below_it(time_us: int) -> None:
    of = [edge for network, edge in NETWORKS.items() if ipaddress.IPv4Address(time_us) in network]
    assert of == [max((edge for edge in CELLS if edge <= time_us), default=CELLS[0])]


def table(*rows: tuple[str, int, int, int]) -> str:
    """What ``show table`` says: key, use, gpc0, http_req_cnt of each row."""
    lines = [
        f"0x1cc3f{i}: key={key} use={use} exp=86399996 shard=0 gpc0={gpc0} http_req_cnt={requests}"
        for i, (key, use, gpc0, requests) in enumerate(rows)
    ]
    return "\n".join([f"# table: catalog, type: string, size:102400, used:{len(rows)}", *lines, "", ""])


def test_rows_are_summed_by_workload_and_a_pod_is_one_server_whatever_it_was_asked_in() -> None:
    answer = table(
        (ARM, 0, 70, 70),
        ("m-r1:10.0.0.1:8080/default:m:a/1100", 0, 0, 40),
        ("m-r1:10.0.0.1:9000/default:m:a/1100", 0, 0, 10),
        ("m-r1:fd00::7:8080/default:m:a/2000", 0, 0, 15),
        ("m-r1:fd00::7:8080/default:m:a/failed", 0, 0, 5),
        ("n-r9:10.0.0.1:8080/team:n:b/10", 0, 0, 1),
    )
    found = parse(answer, PODS, Counted())
    assert found.of("default:m") == {
        "m-r1": Counts(
            70,
            5,
            {1100: 50, 2000: 15},
            {"10.0.0.1:8080": (50, 0), "fd00::7:8080": (20, 5)},
            {"10.0.0.1:8080": {1100: 50}, "fd00::7:8080": {2000: 15}},
        )
    }
    assert found.of("team:n") == {"n-r9": Counts(1, 0, {10: 1}, {"10.0.0.1:8080": (1, 0)}, {"10.0.0.1:8080": {10: 1}})}


def test_what_is_neither_answered_nor_under_way_has_failed() -> None:
    answer = table((ARM, 2, 6, 10), ("m-r1:10.0.0.1:8080/default:m:a/1100", 0, 0, 6))
    assert parse(answer, PODS, Counted()).of("default:m") == {
        "m-r1": Counts(8, 2, {1100: 6}, {"10.0.0.1:8080": (6, 0)}, {"10.0.0.1:8080": {1100: 6}})
    }


def test_what_has_failed_is_not_taken_back_while_answers_are_on_their_way() -> None:
    before = parse(table((ARM, 0, 6, 10)), PODS, Counted())
    after = parse(table((ARM, 3, 8, 13)), PODS, before)
    assert (before.unanswered, after.unanswered) == ({M: 4}, {M: 4})


def test_what_came_of_mirrored_requests_is_counted_beside_requests() -> None:
    answer = table(
        (ARM, 0, 6, 6),
        ("m-r1:10.0.0.1:8080/default:m:a/1100", 0, 0, 6),
        ("m-r2/default:m:b/agreed", 0, 0, 40),
        ("m-r2/default:m:b/disagreed", 0, 0, 2),
    )
    assert parse(answer, PODS, Counted()).of("default:m") == {
        "m-r1": Counts(6, 0, {1100: 6}, {"10.0.0.1:8080": (6, 0)}, {"10.0.0.1:8080": {1100: 6}}),
        "m-r2": Counts(agreed=40, disagreed=2, servers={}),
    }


def test_an_empty_table_says_nothing() -> None:
    assert parse(table(), PODS, Counted()) == Counted()
