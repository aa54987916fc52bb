from __future__ import annotations

from operators.api import announced


def test_steps_count_from_1_and_weights_are_percent_and_what_is_only_remembered_is_left_out() -> None:
    status = {"step": 0, "steps": 3, "target": 500, "weight": 500, "observed": 5, "reached": True, "trail": [1]}
    assert announced.rollout(status) == {
        "step": 1,
        "steps": 3,
        "target": 5,
        "weight": 5,
        "observed": 0.05,
        "reached": True,
    }


def test_once_all_steps_are_over_the_last_one_is_told() -> None:
    assert announced.rollout({"step": 3, "steps": 3}) == {"step": 3, "steps": 3}


def test_an_experiment_has_its_shares_in_percent() -> None:
    status = {"name": "1a", "arms": [{"name": "control", "weight": 3_750}], "memory": {"of": "x"}}
    assert announced.experiment(status) == {"name": "1a", "arms": [{"name": "control", "weight": 37.5}]}


def test_where_there_is_nothing_nothing_is_told() -> None:
    assert (announced.rollout({}), announced.experiment({})) == (None, None)
