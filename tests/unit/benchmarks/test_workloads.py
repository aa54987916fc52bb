import pytest

from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.workloads import FIGURES, TARGETS, WORKLOADS, Unknown, selected


def test_every_contestant_of_a_workload_speaks_its_protocol_and_ours_is_the_first() -> None:
    for workload in WORKLOADS:
        assert workload.contestants[0] == OURS
        assert all(workload.protocol in CONTESTANTS[name].dialects for name in workload.contestants)


def test_every_target_is_measured() -> None:
    for target in TARGETS:
        (workload,) = (one for one in WORKLOADS if one.name == target.workload)
        assert target.peer in workload.contestants
        assert target.figure in FIGURES


def test_nothing_named_is_everything() -> None:
    assert selected(None, None) == WORKLOADS


def test_peers_are_chosen_where_they_take_part_and_ours_always_does() -> None:
    chosen = selected(["ray"], None)
    assert [(one.name, one.contestants) for one in chosen] == [
        ("json-mlp-c8", (OURS, "ray")),
        ("grpc-mlp-c8", (OURS, "ray")),
    ]


@pytest.mark.parametrize(
    ("peers", "workloads", "message"),
    [
        (["tritan"], None, "there is no 'tritan'; expected some of penstock, triton"),
        (None, ["json"], "there is no 'json'; expected some of json-mlp-c1"),
        (["ray"], ["start"], "none of ray takes part in start; name other peers"),
    ],
)
def test_what_cannot_be_compared_is_said(peers: list[str] | None, workloads: list[str] | None, message: str) -> None:
    with pytest.raises(Unknown, match=message):
        selected(peers, workloads)
