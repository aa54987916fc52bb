import datetime
import math
import random
import statistics

import pytest

from operators.api.evidence import Evidence, Tally
from operators.api.model import Analysis, Feedback, MaxLatencyIncrease
from operators.api.plan import Arm, Counts, RouteObserved
from operators.planning.analysis import published, verdict, weighing
from operators.planning.analysis.verdict import Decision, Verdict

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ARMS = Arm("a", "a", "v", 9000), Arm("b", "b", "v", 1000)
LATENCY = MaxLatencyIncrease(ratio=1.3)


def play(stable: Counts, candidate: Counts, settings: Analysis, ticks: int = 1) -> Evidence:
    """So much every ten seconds, after an hour of the stable alone in which 1 of 1,000 failed."""
    before = Counts(90_000, 90, {1000: 80_000, 2000: 9910})
    evidence = weighing.begin(RouteObserved(ARMS, counts={"r": {"a": before, "b": Counts()}}), "a", "b", settings, NOW)
    for tick in range(1, ticks + 1):
        counts = {"a": plus(before, stable, tick), "b": plus(Counts(), candidate, tick)}
        now = NOW + datetime.timedelta(seconds=10 * tick)
        evidence = weighing.weigh(evidence, RouteObserved(ARMS, counts={"r": counts}), settings, now)
    return evidence


def plus(counts: Counts, more: Counts, times: int) -> Counts:
    cells = {*counts.latency, *more.latency}
    latency = {cell: counts.latency.get(cell, 0) + times * more.latency.get(cell, 0) for cell in cells}
    return Counts(counts.answered + times * more.answered, counts.failed + times * more.failed, latency)


GOOD, STABLE = Counts(100, 0, {1000: 90, 2000: 10}), Counts(900, 1, {1000: 800, 2000: 99})


def test_a_candidate_that_fails_more_is_rolled_back_with_the_numbers() -> None:
    settings = Analysis()
    assert verdict.judge(play(STABLE, Counts(100, 10, {1000: 90}), settings), settings) == Verdict(
        Decision.ROLL_BACK,
        "worse than the stable revision: 10 % of 100 requests failed, of the stable revision 0.111 % of 900 requests "
        "(e-value 4.3e+07, rolled back from 100 on)",
    )


def test_a_candidate_that_is_as_good_is_promoted_with_the_numbers() -> None:
    settings = Analysis()
    assert verdict.judge(play(STABLE, GOOD, settings, 4), settings) == Verdict(
        Decision.PROMOTE,
        "not worse than allowed: 0 % of 400 requests failed, of the stable revision 0.111 % of 3,600 requests "
        "(e-value 56.8, promoted from 20 on)",
    )


def test_one_that_was_hardly_asked_goes_on() -> None:
    settings = Analysis()
    found = verdict.judge(play(STABLE, Counts(10, 0, {1000: 10}), settings), settings)
    assert (found.decision, found.inconclusive) == (Decision.GO_ON, False)


@pytest.mark.parametrize(
    ("said", "decision"),
    [("rollBack", Decision.ROLL_BACK), ("promote", Decision.PROMOTE), ("pause", Decision.PAUSE)],
)
def test_after_the_deadline_what_was_declared_holds(said: str, decision: Decision) -> None:
    settings = Analysis.model_validate({"deadline": "1h30m", "onInconclusive": said})
    evidence = play(STABLE, Counts(10, 0, {1000: 10}), settings)
    assert verdict.judge(evidence, settings, 5399).decision is Decision.GO_ON
    found = verdict.judge(evidence, settings, 5400)
    assert (found.decision, found.inconclusive) == (decision, True)
    assert found.sentence.startswith(f"inconclusive after 1h30m, so onInconclusive: {said} holds: 0 % of 10 requests")


def test_without_any_request_nothing_is_decided() -> None:
    settings = Analysis(max_latency_increase=LATENCY)
    evidence = weighing.begin(None, "a", "b", settings, NOW)
    assert verdict.judge(evidence, settings).decision is Decision.GO_ON
    assert published.detection_s(evidence, settings, 0.1) is None
    assert published.latency_detection_s(evidence, settings, 0.1) is None


def test_a_slower_candidate_is_rolled_back_for_its_latency() -> None:
    settings = Analysis(max_latency_increase=LATENCY)
    found = verdict.judge(play(STABLE, Counts(100, 0, {1000: 30, 2000: 70}), settings), settings)
    assert found.decision is Decision.ROLL_BACK
    assert "of 100 requests took over" in found.sentence


def test_the_sentence_names_the_latency_at_which_it_shows() -> None:
    # A shift of what is usual, while hardly anybody waits for long.
    stable, candidate = Counts(900, 0, {1000: 900}), Counts(100, 0, {1000: 40, 2000: 60})
    settings = Analysis(max_latency_increase=MaxLatencyIncrease(percentile=99.9))
    history = Counts(100_000, 0, {1000: 99_000, 2000: 850, 4000: 150})
    evidence = weighing.begin(RouteObserved(ARMS, counts={"r": {"a": history, "b": Counts()}}), "a", "b", settings, NOW)
    counts = {"a": plus(history, stable, 1), "b": candidate}
    seen = RouteObserved(ARMS, counts={"r": counts})
    found = verdict.judge(weighing.weigh(evidence, seen, settings, NOW + datetime.timedelta(seconds=10)), settings)
    assert "60 % of 100 requests took over " in found.sentence


def test_both_metrics_must_be_shown_good_enough_before_a_promotion() -> None:
    settings = Analysis(max_latency_increase=LATENCY)
    evidence = play(STABLE, GOOD, settings, 10)
    assert evidence.metrics[0].against_bad[0] > math.log(20)
    assert verdict.judge(evidence, settings).decision is Decision.GO_ON


def test_a_metric_that_is_not_compared_yet_counts_as_nothing_known() -> None:
    both, errors = Analysis(max_latency_increase=LATENCY), Analysis()
    evidence = play(STABLE, Counts(100, 10), errors)
    halved = math.log((math.exp(verdict.log_e(evidence, errors)) + 1) / 2)
    assert verdict.log_e(evidence, both) == pytest.approx(halved)


def test_the_published_time_is_that_of_the_formula() -> None:
    settings = Analysis(max_error_rate_increase=0.009)
    evidence = play(STABLE, GOOD, settings)
    weight, stable, candidate = 0.1, 0.001, 0.01
    bad_per_s = 100 * (weight * candidate + (1 - weight) * stable)
    share = weight * candidate / (weight * candidate + (1 - weight) * stable)
    divergence = share * math.log(share / weight) + (1 - share) * math.log((1 - share) / (1 - weight))
    formula_s = (math.log(1 / settings.alpha) + math.log(len(weighing.WORSE))) / (bad_per_s * divergence)
    published_s = published.detection_s(evidence, settings, weight)
    assert published_s == pytest.approx(formula_s, rel=0.1)


def test_the_published_time_grows_with_the_design_effect() -> None:
    settings = Analysis()
    evidence = play(STABLE, GOOD, settings)
    before = tuple(one.model_copy(update={"bad": 1000.0, "seen": 5000.0}) for one in evidence.before)
    stalling = evidence.model_copy(update={"before": before})
    calm_s, stalling_s = (published.detection_s(one, settings, 0.1) for one in (evidence, stalling))
    assert calm_s is not None
    assert stalling_s is not None
    assert stalling_s > 5 * calm_s


def judged_s(draw: random.Random, settings: Analysis, wrong: tuple[float, float], until_s: float) -> float | None:
    """When a revision of which users find so many answers wrong is rolled back; 4 of them tell in a second."""
    told = {"a": Counts(), "b": Counts()}
    arms = Arm("a", "a", "v", 8000), Arm("b", "b", "v", 2000)
    evidence = weighing.begin(RouteObserved(arms, counts={"r": dict(told)}), "a", "b", settings, NOW)
    for tick in range(1, int(until_s / weighing.WINDOW_S) + 1):
        for _ in range(20):
            place = draw.random() < 0.2
            before = told["ab"[place]]
            more = before.wrong + (draw.random() < wrong[place])
            told["ab"[place]] = Counts(judged=before.judged + 1, wrong=more)
        at = NOW + datetime.timedelta(seconds=tick * weighing.WINDOW_S)
        evidence = weighing.weigh(evidence, RouteObserved(arms, counts={"r": dict(told)}), settings, at)
        if verdict.judge(evidence, settings).decision is verdict.Decision.ROLL_BACK:
            return tick * weighing.WINDOW_S
    return None


def test_half_of_the_revisions_with_more_wrong_answers_are_found_when_it_was_published_and_of_equal_ones_none() -> None:
    asked, draw = Analysis(feedback=Feedback(max_increase=0.25)), random.Random(1)
    begun = weighing.begin(None, "a", "b", asked, NOW)
    assert published.feedback_detection_s(begun, asked, 0.2) is None, "nobody has told of anything"
    known = begun.metrics[1].model_copy(update={"tallies": (Tally(stable=(4000, 200)),)})
    update = {"metrics": (begun.metrics[0], known), "observed_s": 1000.0}
    expected_s = published.feedback_detection_s(begun.model_copy(update=update), asked, 0.2)
    found = [judged_s(draw, asked, (0.05, 0.3), 600) for _ in range(60)]
    assert statistics.median(one or 600.0 for one in found) == pytest.approx(expected_s, rel=0.25)
    assert [judged_s(draw, asked, (0.05, 0.05), 300) for _ in range(40)] == [None] * 40


@pytest.mark.parametrize(
    ("stable", "candidate", "said"),
    [
        ((2000, 24), (100, 4), "4 % of 100 answers with feedback were wrong, of the stable revision 1.2 % of 2,000"),
        ((0, 0), (100, 4), "4 % of 100 answers with feedback were wrong, of the stable revision none is known"),
        ((2000, 24), (0, 0), "nobody has given feedback on it"),
    ],
)
def test_feedback_that_did_not_come_is_not_told_as_zero(
    stable: tuple[int, int], candidate: tuple[int, int], said: str
) -> None:
    settings = Analysis(feedback=Feedback())
    evidence = weighing.begin(None, "a", "b", settings, NOW)
    metric = evidence.metrics[1].model_copy(update={"tallies": (Tally(stable=stable, candidate=candidate),)})
    assert verdict.told(evidence, metric, settings) == said
