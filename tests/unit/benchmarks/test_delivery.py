import json
import math

import numpy as np
import pytest

from benchmarks import delivery
from benchmarks.__main__ import main
from benchmarks.delivery import drawing, rules, simulation, traffic
from benchmarks.delivery.scenarios import SCENARIOS
from benchmarks.delivery.traffic import Scenario, Stalls
from operators.api.model import Analysis
from operators.api.plan import FULL_WEIGHT

KEYS = {"name", "kind", "alpha", "falseRollback", "wrongPromotion", "medianDetectionS", "predictedDetectionS"}


def test_rows_are_printed_as_json_and_the_same_seed_gives_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        main(["delivery", "-o", "json", "--runs", "2", "--seed", "7", "--only", "0.1 → 5 %"])
        rows = json.loads(capsys.readouterr().out)["rows"]
        printed.append([{key: value for key, value in row.items() if key != "cpuS"} for row in rows])
    assert printed[0] == printed[1]
    assert [row["name"] for row in printed[0]] == ["0.1 → 5 %", "0.1 → 5 %, stalls, 3 of 30 pods"]
    assert all(row.keys() >= KEYS for row in printed[0])


def test_a_revision_that_fails_often_is_rolled_back_by_everybody() -> None:
    scenario = Scenario("bad", "shift", worse=0.2, seconds=1200)
    random = np.random.default_rng(0)
    row = delivery._row(scenario, 3, random, Analysis())
    assert (row["found"], row["wrongPromotion"], row["falseRollback"]) == (1.0, 0.0, 0.0)
    assert [one["rolledBack"] for one in row["rules"].values()] == [1.0, 1.0, 1.0]


def test_traffic_is_split_by_weight_and_stalled_pods_fail_their_share() -> None:
    scenario = Scenario("stalls", "null", base=0.0, stalls=Stalls(every_s=100, lasts_s=100, fails=1.0), seconds=36_000)
    drawn = traffic.draw(scenario, np.random.default_rng(1))
    assert drawn.shares == (0,) * drawn.starts + (FULL_WEIGHT // 10,) * 3600
    asked = drawn.candidate.answered.sum() + drawn.stable.answered[drawn.starts :].sum()
    assert drawn.candidate.answered.sum() / asked == pytest.approx(0.1, rel=0.01)
    assert drawn.stable.failed.sum() / drawn.stable.answered.sum() == pytest.approx(0.5, abs=0.05)


def test_the_latency_of_a_slower_candidate_is_shifted() -> None:
    drawn = traffic.draw(Scenario("slow", "shift", slower=2.0), np.random.default_rng(2))
    halves = []
    for side in (drawn.stable, drawn.candidate):
        cells = np.cumsum(side.latency.sum(axis=(0, 1)))
        halves.append(traffic.CELLS[int(np.searchsorted(cells, cells[-1] / 2))])
    assert halves == [36_000, 80_000]


def test_a_run_that_is_never_found_lasts_to_its_end() -> None:
    scenario = Scenario("good", "null", seconds=600)
    played = simulation.play(scenario, traffic.draw(scenario, np.random.default_rng(3)))
    assert (played.rolled_back_s, played.promoted_s < math.inf) == (math.inf, True)


def test_others_decide_in_the_minute_in_which_their_rule_is_met() -> None:
    n, m = np.full((1, 20), 100), np.full((1, 20), 900)
    y = np.full((1, 20), 9)
    x = np.array([[0, 2, 0, 2, 2, *[20] * 15]])
    found = {name: rule(n, x, m, y, 0.01).tolist() for name, rule in rules.RULES.items()}
    assert found == {"thresholds": [300.0], "fisher": [360.0], "mannWhitney": [600.0]}
    good = {name: rule(n, np.zeros_like(x), m, y, 0.01).tolist() for name, rule in rules.RULES.items()}
    assert good == {"thresholds": [math.inf], "fisher": [math.inf], "mannWhitney": [math.inf]}


def test_names_of_scenarios_tell_them_apart() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_the_same_rows_give_the_same_plot(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("plots")
    others = {name: {"rolledBack": 0.5, "medianS": None} for name in rules.RULES}
    null = {"name": "good", "kind": "null", "falseRollback": 0.0, "rules": others}
    shift = {"name": "bad", "kind": "shift", "medianDetectionS": 60.0, "predictedDetectionS": 65.0, "rules": others}
    for name in ("one.svg", "two.svg"):
        drawing.plot([null, shift], 0.01, folder / name)
    assert (folder / "one.svg").read_bytes() == (folder / "two.svg").read_bytes()
