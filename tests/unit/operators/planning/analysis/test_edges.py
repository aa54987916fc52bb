import itertools

from hypothesis import given
from hypothesis import strategies as st

from operators.api.evidence import Edge
from operators.api.model import MaxLatencyIncrease
from operators.api.plan import CELLS
from operators.planning.analysis import edges

HISTORY = {1000: 500, 2000: 300, 4000: 150, 8000: 45, 16_000: 5}


def test_edges_are_the_first_above_the_percentiles_with_the_one_of_the_spec_first() -> None:
    found = edges.choose(HISTORY, MaxLatencyIncrease(percentile=99, ratio=1.3))
    assert [(edge.above_us, edge.allowed_us, edge.share) for edge in found] == [
        (9000, 11_000, 0.005),
        (1100, 1400, 0.5),
        (2200, 2800, 0.2),
        (4500, 5600, 0.05),
    ]


def test_nothing_is_chosen_where_latency_is_not_judged_or_hardly_known() -> None:
    assert edges.choose(HISTORY, None) == ()
    assert edges.choose({1000: edges.ENOUGH - 1}, MaxLatencyIncrease()) == ()


def test_how_many_would_be_slow_is_read_within_a_cell() -> None:
    (edge,) = set(edges.choose({1000: 1000}, MaxLatencyIncrease(ratio=1.2)))
    assert (edge.above_us, edge.share) == (1100, 0.0)
    assert edge == Edge(above_us=1100, allowed_us=1300, share=0.0, share_if_slower=edge.share_if_slower)
    assert edge.share_if_slower == 1.0


@given(st.floats(1.2, 100), st.integers(10, 10_000_000))
def test_the_allowed_edge_is_never_above_the_allowed_latency(ratio: float, cell: int) -> None:
    for edge in edges.choose({cell: 1000}, MaxLatencyIncrease(ratio=ratio)):
        assert edge.allowed_us <= edge.above_us * ratio
        assert 0 <= edge.share <= edge.share_if_slower <= 1


def test_edges_are_in_steps_of_about_twelve_per_cent() -> None:
    assert all(1.07 < after / before < 1.19 for before, after in itertools.pairwise(CELLS))
