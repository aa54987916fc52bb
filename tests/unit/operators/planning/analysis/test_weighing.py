import dataclasses
import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.api.evidence import Evidence
from operators.api.model import Analysis, Feedback, MaxLatencyIncrease
from operators.api.plan import Arm, Counts, RouteObserved
from operators.planning.analysis import margin, odds, verdict, weighing
from operators.planning.analysis.windows import Table

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ERRORS = Analysis()
LATENCY = Analysis(max_latency_increase=MaxLatencyIncrease())
STABLE, CANDIDATE = Counts(9000, 9, {1000: 8991}), Counts(0, 0)


def seen(stable: Counts, candidate: Counts, weight: int = 1000, source: str = "r") -> RouteObserved:
    arms = Arm("a", "a", "v", 10_000 - weight), Arm("b", "b", "v", weight)
    return RouteObserved(arms, counts={source: {"a": stable, "b": candidate}})


def grown(counts: Counts, answered: int, failed: int) -> Counts:
    latency = {1000: counts.latency.get(1000, 0) + answered - failed}
    return Counts(counts.answered + answered, counts.failed + failed, latency)


def begun(settings: Analysis = ERRORS) -> Evidence:
    return weighing.begin(seen(STABLE, CANDIDATE), "a", "b", settings, NOW)


def after(evidence: Evidence, route: RouteObserved | None, seconds: float, settings: Analysis = ERRORS) -> Evidence:
    return weighing.weigh(evidence, route, settings, NOW + datetime.timedelta(seconds=seconds))


def logs(evidence: Evidence) -> list[tuple[float, ...]]:
    return [metric.against_good + metric.against_bad for metric in evidence.metrics]


def test_a_window_is_weighed_by_the_conditional_test() -> None:
    found = after(begun(), seen(grown(STABLE, 900, 1), grown(CANDIDATE, 100, 2)), 10)
    expected = [odds.log_e(Table(100, 2, 900, 1), ratio) for ratio in weighing.WORSE]
    assert found.metrics[0].against_good == pytest.approx(expected, abs=1e-5)
    assert found.metrics[0].tallies[0].candidate == (100, 2)
    assert (found.answered, found.observed_s, found.base) == (1000, 10.0, (9900, 10))


@pytest.mark.parametrize(
    "change",
    [
        lambda stable, candidate: None,
        lambda stable, candidate: RouteObserved(seen(stable, candidate).arms),
        lambda stable, candidate: RouteObserved((), counts={"r": {"a": stable, "b": candidate}}),
        lambda stable, candidate: seen(stable, candidate, weight=2000),
        lambda stable, candidate: seen(stable, candidate, source="another"),
        lambda stable, candidate: seen(Counts(10, 10), candidate),
        lambda stable, candidate: seen(STABLE, CANDIDATE),
    ],
    ids=["nothing told", "no counts", "no weights", "other weights", "other source", "reset", "stale"],
)
def test_what_cannot_be_compared_is_no_evidence(change: Callable[[Counts, Counts], RouteObserved | None]) -> None:
    evidence = begun()
    found = after(evidence, change(grown(STABLE, 900, 0), grown(CANDIDATE, 100, 50)), 10)
    assert (logs(found), found.answered) == (logs(evidence), 0)


def test_a_steady_state_changes_nothing_to_be_written() -> None:
    evidence = begun()
    assert after(evidence, seen(STABLE, CANDIDATE), 3600) is evidence
    assert after(evidence, seen(grown(STABLE, 9, 0), CANDIDATE), weighing.WINDOW_S / 2) is evidence
    assert after(evidence, None, 3600) is evidence


def test_it_goes_on_after_a_time_without_news() -> None:
    late = after(after(begun(), None, 60), seen(grown(STABLE, 900, 1), grown(CANDIDATE, 100, 2)), 120)
    assert logs(late) == logs(after(begun(), seen(grown(STABLE, 900, 1), grown(CANDIDATE, 100, 2)), 10))


def test_a_change_of_weights_begins_a_new_window_at_once() -> None:
    evidence = after(begun(), seen(grown(STABLE, 90, 0), CANDIDATE, weight=5000), 1)
    assert (evidence.weight, evidence.marks[0].stable[0]) == (5000, 9090)


def test_edges_are_chosen_once_the_stable_has_answered_enough_and_judge_only_what_comes_later() -> None:
    few = Counts(100, 0, {1000: 100})
    evidence = weighing.begin(seen(few, CANDIDATE), "a", "b", LATENCY, NOW)
    assert [metric.name for metric in evidence.metrics] == ["errors"]
    evidence = after(evidence, seen(grown(few, 900, 0), Counts(100, 0, {9000: 100})), 10, LATENCY)
    assert [(metric.name, set(metric.against_good)) for metric in evidence.metrics] == [
        ("errors", {0.0}),
        ("latency", {0.0}),
    ]
    evidence = after(evidence, seen(grown(few, 1800, 0), Counts(200, 0, {9000: 200})), 20, LATENCY)
    assert evidence.metrics[1].against_good[2] > 50


def weighed(settings: Analysis) -> tuple[Evidence, Counts, Counts]:
    """One window after the beginning, and the counts by then."""
    evidence = weighing.begin(seen(STABLE, CANDIDATE), "a", "b", settings, NOW)
    stable, candidate = grown(STABLE, 900, 1), grown(CANDIDATE, 100, 2)
    return after(evidence, seen(stable, candidate), 10, settings), stable, candidate


def test_another_margin_of_errors_weighs_promotion_anew_and_keeps_what_speaks_for_a_rollback() -> None:
    before, stable, candidate = weighed(ERRORS)
    other = Analysis(max_error_rate_increase=0.1)
    found = after(before, seen(grown(stable, 900, 0), grown(candidate, 100, 0)), 20, other)
    (metric,) = found.metrics
    assert (metric.against_good, metric.tallies) == (before.metrics[0].against_good, before.metrics[0].tallies)
    assert metric.against_bad == (0.0,)
    stable, candidate = grown(stable, 1800, 0), grown(candidate, 200, 0)
    found = after(found, seen(stable, candidate), 30, other)
    assert found.metrics[0].against_bad[0] > 0
    assert found.metrics[0].tallies[0].candidate == (200, 2), "the window in which it changed is under neither"


def test_another_margin_is_taken_up_also_while_nothing_is_counted() -> None:
    before, _, _ = weighed(ERRORS)
    assert after(before, None, 20, Analysis(max_error_rate_increase=0.001)).metrics[0].against_bad == (0.0,)


def test_another_margin_of_latency_chooses_edges_anew_and_leaves_errors_as_they_are() -> None:
    before, stable, candidate = weighed(LATENCY)
    other = Analysis(max_latency_increase=MaxLatencyIncrease(ratio=3))
    found = after(before, seen(stable, candidate), 11, other)
    assert [edge.above_us for edge in found.edges] == [edge.above_us for edge in before.edges]
    assert all(new.allowed_us > old.allowed_us for new, old in zip(found.edges, before.edges, strict=True))
    assert found.metrics[0] == before.metrics[0]
    assert set(found.metrics[1].against_good + found.metrics[1].against_bad) == {0.0}
    assert len(found.marks[0].candidate) == len(before.marks[0].candidate)


def test_latency_that_is_judged_no_more_stands_in_nobodys_way() -> None:
    before, stable, candidate = weighed(LATENCY)
    found = after(before, seen(stable, candidate), 11, ERRORS)
    assert ([metric.name for metric in found.metrics], found.edges) == (["errors"], ())
    for tick in range(2, 20):
        found = after(found, seen(grown(stable, 900 * tick, 0), grown(candidate, 100 * tick, 0)), 10 * tick, ERRORS)
    assert verdict.judge(found, ERRORS).decision is verdict.Decision.PROMOTE


def test_bounds_and_deadlines_that_change_leave_the_evidence_as_it_is() -> None:
    before, stable, candidate = weighed(LATENCY)
    other = LATENCY.model_copy(update={"alpha": 0.1, "beta": 0.1, "deadline": "5m", "on_inconclusive": "pause"})
    assert after(before, seen(stable, candidate), 20, other) is before


def test_what_is_remembered_stays_small() -> None:
    servers = {f"10.123.45.{n}:8080": (50_000, 500) for n in range(40)}
    latency = {name: {edge * 10**decade: 700 for edge in (10, 20, 50) for decade in range(6)} for name in servers}
    stable = Counts(2_000_000, 20_000, {10_000: 1_980_000}, servers, latency)
    route = seen(stable, stable)
    route = dataclasses.replace(route, counts={f"router-{n}/1234": route.counts["r"] for n in range(4)})
    evidence = weighing.begin(route, "a", "b", LATENCY, NOW)
    for tick in range(1, 40):
        more = {name: (answered + tick * 1000, failed + tick) for name, (answered, failed) in servers.items()}
        total = Counts(2_000_000 + tick * 40_000, 20_000 + tick * 40, stable.latency, more, latency)
        counts = {name: {"a": total, "b": total} for name in route.counts}
        evidence = after(evidence, dataclasses.replace(route, counts=counts), tick * 10, LATENCY)
    assert len(evidence.model_dump_json(by_alias=True)) < 8_000


steps = st.tuples(st.integers(0, 200), st.integers(0, 30), st.integers(0, 50), st.integers(0, 30))


@given(st.lists(steps, max_size=8), st.integers(1, 50))
def test_evidence_does_not_depend_on_how_fast_time_runs(ticks: list[tuple[int, int, int, int]], pace: int) -> None:
    found = []
    for seconds in (10, 10 * pace):
        evidence, stable, candidate = begun(), STABLE, CANDIDATE
        for tick, (well, bad, also_well, also_bad) in enumerate(ticks, 1):
            stable, candidate = grown(stable, well + bad, bad), grown(candidate, also_well + also_bad, also_bad)
            evidence = after(evidence, seen(stable, candidate), tick * seconds)
        found.append(logs(evidence))
    assert found[0] == found[1]


@given(st.lists(steps, max_size=8), st.sets(st.integers(0, 7)))
def test_a_reset_loses_its_own_window_and_nothing_else(
    ticks: list[tuple[int, int, int, int]], resets: set[int]
) -> None:
    evidence, stable, candidate, source = begun(), STABLE, CANDIDATE, "r"
    for tick, (well, bad, also_well, also_bad) in enumerate(ticks):
        before = evidence
        if tick in resets:
            stable, candidate, source = Counts(), Counts(), f"after {tick}"
        stable, candidate = grown(stable, well + bad, bad), grown(candidate, also_well + also_bad, also_bad)
        evidence = after(evidence, seen(stable, candidate, source=source), 10 * (tick + 1))
        if tick in resets:
            assert (logs(evidence), evidence.base) == (logs(before), before.base)
        else:
            assert evidence.base == (before.base[0] + well + bad, before.base[1] + bad)


FEEDBACK = Analysis(feedback=Feedback(max_increase=0.05))
NOBODY = Counts()


def told(stable: Counts, candidate: Counts) -> RouteObserved:
    """One process has counted nothing, the other one what users said."""
    arms = Arm("a", "a", "v", 9000), Arm("b", "b", "v", 1000)
    counts = {"haproxy": {"a": NOBODY, "b": NOBODY}, "agent": {"a": stable, "b": candidate}}
    return RouteObserved(arms, counts=counts)


def test_what_users_say_is_weighed_by_the_same_test_and_by_nothing_else() -> None:
    begun = weighing.begin(told(NOBODY, NOBODY), "a", "b", FEEDBACK, NOW)
    found = after(begun, told(Counts(judged=90, wrong=1), Counts(judged=10, wrong=4)), 10, FEEDBACK)
    errors, feedback = found.metrics
    expected = [odds.log_e(Table(10, 4, 90, 1), ratio) for ratio in weighing.WORSE]
    assert feedback.against_good == pytest.approx(expected, abs=1e-5)
    assert feedback.against_bad == pytest.approx([margin.log_e(Table(10, 4, 90, 1), 0.05, 0.5)], abs=1e-5)
    assert (feedback.tallies[0].stable, feedback.tallies[0].candidate) == ((90, 1), (10, 4))
    assert errors == begun.metrics[0]


def test_without_feedback_nothing_is_shown_about_it() -> None:
    begun = weighing.begin(seen(STABLE, CANDIDATE), "a", "b", FEEDBACK, NOW)
    found = after(begun, seen(grown(STABLE, 900, 0), grown(CANDIDATE, 1000, 0)), 10, FEEDBACK)
    assert found.metrics[1] == begun.metrics[1]
    assert verdict.log_e_for(found, FEEDBACK) == 0.0


def test_another_margin_of_feedback_keeps_what_speaks_for_a_rollback_and_none_at_all_drops_it() -> None:
    begun = weighing.begin(told(NOBODY, NOBODY), "a", "b", FEEDBACK, NOW)
    found = after(begun, told(Counts(judged=90, wrong=1), Counts(judged=10, wrong=4)), 10, FEEDBACK)
    other = after(found, None, 10, Analysis(feedback=Feedback(max_increase=0.1)))
    before, now = found.metrics[1], other.metrics[1]
    assert (now.against_good, now.against_bad, now.margin) == (before.against_good, (0.0,), (0.1,))
    assert [metric.name for metric in after(found, None, 10, ERRORS).metrics] == ["errors"]
