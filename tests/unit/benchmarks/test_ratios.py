from benchmarks.ratios import Comparison, Row, Sample, rows


def sample(contestant: str, number: int, rate: float, cpu_us: float = 1.0, foreign: float = 0.0) -> Sample:
    return Sample("json-mlp-c8", contestant, number, {"rate": rate, "cpu_us": cpu_us}, foreign)


def test_a_ratio_is_the_median_of_what_each_round_gave_and_not_that_of_the_medians() -> None:
    samples = [sample("ours", 0, 10), sample("ours", 1, 40), sample("ours", 2, 90)]
    samples += [sample("kserve", 0, 5, 3), sample("kserve", 1, 4, 2), sample("kserve", 2, 30, 1)]
    assert rows(samples, "ours") == [
        Row(
            "json-mlp-c8",
            "kserve",
            rounds=3,
            disturbed=0,
            figures={
                "rate": Comparison(ours=40, peer=5, ratio=3, low=2, high=10, target=8, met=False),
                "cpu_us": Comparison(ours=1, peer=2, ratio=2, low=1, high=3),
            },
        )
    ]


def test_disturbed_rounds_are_left_out_where_three_quiet_ones_remain() -> None:
    loud = [sample("ours", 0, 100, foreign=1.0), sample("bentoml", 0, 1)]
    quiet = [sample(name, number, 2 if name == "ours" else 1) for number in (1, 2, 3) for name in ("ours", "bentoml")]
    (row,) = rows(loud + quiet, "ours")
    assert (row.rounds, row.disturbed, row.figures["rate"].high) == (3, 0, 2)
    (row,) = rows(loud + quiet[:4], "ours")
    assert (row.rounds, row.disturbed, row.figures["rate"].high) == (3, 1, 100)


def test_a_round_that_one_of_two_lacks_is_no_pair() -> None:
    samples = [sample("ours", 0, 2), sample("ours", 1, 2), sample("ray", 1, 1)]
    (row,) = rows(samples, "ours")
    assert row.rounds == 1


def test_a_start_is_good_when_it_is_a_small_part_of_the_peers() -> None:
    samples = [Sample("start", name, 0, {"start_s": took_s}, 0.0) for name, took_s in (("ours", 1.0), ("kserve", 5.0))]
    (row,) = rows(samples, "ours")
    assert row.figures["start_s"] == Comparison(ours=1, peer=5, ratio=0.2, low=0.2, high=0.2, target=0.25, met=True)
