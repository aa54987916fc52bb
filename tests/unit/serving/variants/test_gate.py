from __future__ import annotations

from serving.variants import gate
from serving.variants.gate import Candidate, Needed, Quality, Rule, Slice, Verdict

RULE = Rule(max_drop=0.01, alpha=0.05, max_slice_drop=0.05, slice_by="label")


def quality(
    drop: float = 0.0, bound: float = 0.005, slices: tuple[Slice, ...] = (), churn: float = 0.0, **other: int
) -> Quality:
    return Quality(0.99 - drop, drop, bound, 599, 0.01, churn, slices, **other)


SOURCE = Candidate("fp32", quality(), 3.0)


def judged(*others: Candidate) -> dict[str, Verdict]:
    return dict(gate.judge(SOURCE, others, RULE, "CPU time"))


def test_a_variant_that_is_as_good_and_cheaper_may_serve() -> None:
    assert judged(Candidate("int8", quality(), 1.0)) == {
        "int8": Verdict(True, "3.0 times less CPU time, and a loss of at most 0.50 points at 95% confidence")
    }


def test_what_costs_more_than_the_source_is_refused_with_the_factor() -> None:
    assert judged(Candidate("dynamic", quality(), 15.0)) == {
        "dynamic": Verdict(False, "it takes 5.0 times the CPU time of the source")
    }


def test_what_gains_nothing_is_refused() -> None:
    assert judged(Candidate("fp16", quality(), 2.99)) == {
        "fp16": Verdict(False, "it takes as much CPU time as the source")
    }


def test_what_gains_nothing_over_an_accepted_variant_is_refused_as_well() -> None:
    found = judged(Candidate("int8", quality(), 1.0), Candidate("int8-again", quality(), 0.95))
    assert found["int8"].accepted
    assert found["int8-again"].reason == (
        "it takes 5.0% less CPU time than variant int8, and a change is worth it from 9.1% on"
    )


def test_what_costs_a_little_more_is_told_in_percent() -> None:
    assert judged(Candidate("other", quality(), 3.15))["other"].reason == "it takes 5% more CPU time than the source"


def test_drops_of_what_goes_from_0_to_1_are_told_in_points_though_it_is_no_share() -> None:
    rule = Rule(max_drop=0.01, alpha=0.05, is_share=False)
    found = gate.judge(SOURCE, [Candidate("naive", quality(0.4057, 0.427), 2.0)], rule, "CPU time")
    assert found["naive"].reason == "it loses 40.57 points on 599 samples, more than the 1.00 points allowed"


def test_a_drop_beyond_the_budget_is_refused_however_cheap() -> None:
    assert judged(Candidate("tiny", quality(0.03, 0.045), 0.1))["tiny"] == Verdict(
        False, "it loses 3.00 points on 599 samples, more than the 1.00 points allowed"
    )


def test_a_drop_that_is_within_the_budget_by_chance_alone_is_refused() -> None:
    assert judged(Candidate("lucky", quality(0.005, 0.013), 0.1))["lucky"] == Verdict(
        False, "it may lose up to 1.30 points (measured: 0.50 points on 599 samples), and 1.00 points are allowed"
    )


def test_one_bad_slice_refuses_a_variant_that_is_good_on_average() -> None:
    slices = (Slice("3", 60, 0.0, 0.049), Slice("8", 60, 5 / 60, 0.16))
    assert judged(Candidate("pruned", quality(slices=slices), 1.0))["pruned"] == Verdict(
        False, "it loses 8.33 points on 60 samples where label is 8, more than the 5.00 points allowed"
    )


def test_a_slice_with_too_few_samples_says_how_many_it_takes() -> None:
    slices = (Slice("8", 40, 0.0, 0.072),)
    assert judged(Candidate("pruned", quality(slices=slices), 1.0))["pruned"] == Verdict(
        False,
        "it may lose up to 7.20 points where label is 8 (measured: 0.00 points on 40 samples), and 5.00 points are "
        "allowed; to show that nothing is lost takes 59 samples there",
    )


def test_the_more_answers_change_the_more_samples_are_asked_for() -> None:
    lucky = quality(0.005, 0.013, churn=0.005)
    assert judged(Candidate("lucky", lucky, 0.1))["lucky"].reason == (
        "it may lose up to 1.30 points (measured: 0.50 points on 599 samples), and 1.00 points are allowed; "
        "to show that nothing is lost takes 862 samples"
    )
    slices = tuple(Slice(str(name), 60, 0.0, 0.049) for name in range(10))
    assert gate.samples_needed(quality(slices=slices, churn=0.005), RULE) == Needed(1333, 134)


def test_of_a_mean_the_samples_needed_follow_from_how_wide_its_bound_is() -> None:
    """599 samples times the square of (1.645 + 1.282) / 1.645, for a bound as wide as the budget at 5 % and 90 %."""
    rule = Rule(max_drop=0.5, alpha=0.05, is_share=False, has_points=False)
    assert gate.samples_needed(quality(0.1, 0.1 + 0.5), rule) == Needed(1897, None)
    assert (
        "takes 1897 samples"
        in dict(gate.judge(SOURCE, [Candidate("rough", quality(0.1, 0.6), 1.0)], rule, "CPU time"))["rough"].reason
    )


def test_answers_that_are_no_numbers_refuse_a_variant() -> None:
    assert judged(Candidate("fp16", quality(not_finite=3), 1.0))["fp16"].reason == (
        "3 of 599 answers hold NaN or an infinity where the source's do not: the recipe overflows; leave the nodes "
        "that do in the source's precision"
    )


def test_answers_beyond_all_that_the_source_gives_refuse_a_variant() -> None:
    assert not judged(Candidate("odd", quality(out_of_range=1), 1.0))["odd"].accepted


def test_a_drop_that_is_no_number_refuses_a_variant() -> None:
    nan = float("nan")
    why = "nothing can be said of its drop: the metric has no value on its {} samples{}; give others"
    assert judged(Candidate("odd", quality(nan, nan), 1.0))["odd"] == Verdict(False, why.format(599, ""))
    slices = (Slice("7", 50, 0.0, 0.04), Slice("8", 60, nan, nan), Slice("9", 70, 0.0, 0.04))
    assert judged(Candidate("odd", quality(slices=slices), 1.0))["odd"] == Verdict(
        False, why.format(60, " where label is 8")
    )


def test_where_one_engine_is_asked_for_the_source_is_no_rival_and_what_is_bad_is_refused_all_the_same() -> None:
    others = [
        Candidate("plain", quality(0.0, 0.004), 12.0),
        Candidate("int8", quality(0.001, 0.005), 4.0),
        Candidate("bad", quality(0.4, 0.45), 1.0),
    ]
    found = gate.judge(SOURCE, others, RULE, "CPU time", "openvino")

    assert {name: one.accepted for name, one in found.items()} == {"plain": True, "int8": True, "bad": False}
    assert found["plain"].reason.startswith("it is for openvino, as is asked: ")
    assert "times the CPU time of the source by ONNX Runtime" in found["plain"].reason
