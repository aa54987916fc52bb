"""An experiment from one report of a router to the next, and what is said of it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping

import numpy as np
import pytest

from operators.api.endpoint import Endpoint
from operators.api.experiment import ExperimentStatus
from operators.api.outcomes import Tally, Told
from operators.api.plan import FULL_WEIGHT, Event
from operators.planning.experiments import course

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ARMS = ({"name": "control", "model": "a", "weight": 50}, {"name": "challenger", "model": "b", "weight": 50})


@dataclasses.dataclass
class Course:
    """Goes on as an operator would have it, which remembers nothing but the status."""

    endpoint: Endpoint
    now: datetime.datetime = START
    counted: dict[str, dict[str, Tally]] = dataclasses.field(default_factory=dict)
    events: list[Event] = dataclasses.field(default_factory=list)
    complete: bool = True

    def look(self, after_s: float = course.LOOK_S) -> ExperimentStatus:
        self.now += datetime.timedelta(seconds=after_s)
        name = self.endpoint.status.experiment.name if self.endpoint.status.experiment else ""
        told = {source: Told(name, dict(arms)) for source, arms in self.counted.items()}
        found = course.follow(self.endpoint, told, self.complete, self.now)
        assert found is not None
        status, events = found
        self.events += events
        # As it is after it was written and read.
        status = ExperimentStatus.model_validate_json(status.model_dump_json(by_alias=True))
        self.endpoint = self.endpoint.model_copy(
            update={"status": self.endpoint.status.model_copy(update={"experiment": status})}
        )
        return status

    def reports(self, source: str, arm: str, ones: int, zeros: int, share: float = 0.5) -> None:
        arms = self.counted.setdefault(source, {})
        more = [Tally.of(y, 0, share).times(times) for y, times in ((1, ones), (0, zeros))]
        arms[arm] = arms.get(arm, Tally()) + more[0] + more[1]

    @property
    def weights(self) -> dict[str, int]:
        assert self.endpoint.status.experiment is not None
        return {arm.name: arm.weight for arm in self.endpoint.status.experiment.arms}


def begun(arms: tuple[Mapping[str, object], ...] = ARMS, **spec: object) -> Course:
    given = {"metadata": {"name": "reader", "uid": "1"}, "spec": {"arms": arms, **spec}}
    found = Course(Endpoint.model_validate(given))
    found.look(0)
    return found


def experiment(**settings: object) -> Course:
    return begun(experiment={"metric": "clicks", **settings})


def test_what_is_not_asked_for_is_not_followed() -> None:
    plain = Endpoint.model_validate({"metadata": {"name": "reader"}, "spec": {"arms": ARMS}})
    assert course.follow(plain, {}, True, START) is None


def test_a_better_arm_is_told_with_its_interval() -> None:
    told = experiment()
    told.reports("a", "control", 1_000, 1_000)
    told.reports("a", "challenger", 1_200, 800)
    found = told.look()
    assert found.verdict == "challenger is better than control by 0.1 (0.0511 to 0.149)"
    assert (found.state, [arm.units for arm in found.arms], [arm.mean for arm in found.arms]) == (
        "Found",
        [2_000, 2_000],
        [0.5, 0.6],
    )
    assert [event.reason for event in told.events] == ["DifferenceFound"]


def test_a_worse_arm_and_one_of_which_nothing_is_known_are_told_as_such() -> None:
    arms = (*({**arm, "weight": 30} for arm in ARMS), {"name": "other", "model": "c", "weight": 40})
    told = begun(arms, experiment={"metric": "clicks"})
    told.reports("a", "control", 900, 600)
    told.reports("a", "challenger", 600, 900)
    told.reports("a", "other", 1_200, 800)
    assert told.look().verdict == (
        "challenger is worse than control by 0.2 (0.139 to 0.261); "
        "no difference between other and control is found yet: +0 (-0.0568 to +0.0568)"
    )


def test_few_outcomes_say_nothing() -> None:
    told = experiment()
    told.reports("a", "control", 10, 0)
    assert told.look().verdict == "too few outcomes of challenger or control to say anything"


def test_with_a_wrong_sample_ratio_nothing_is_concluded() -> None:
    told = experiment()
    told.reports("a", "control", 0, 5_000)
    told.reports("a", "challenger", 4_000, 0)
    found = told.look()
    assert found.verdict == (
        "the sample ratio is off: 5,000 of 9,000 outcomes are of control where 4,500 were expected; "
        "no conclusion, find out whose outcomes are lost"
    )
    assert (found.state, [arm.effect for arm in found.arms]) == ("Blocked", [None, None])
    assert [(event.reason, event.is_warning) for event in told.events] == [("SampleRatioOff", True)]


def test_a_router_that_begins_anew_loses_nothing_and_one_that_is_heard_twice_counts_once() -> None:
    told = experiment()
    told.reports("a", "control", 60, 40)
    told.look()
    told.look()
    told.counted.clear()
    told.reports("b", "control", 10, 0)
    told.look()
    told.counted["a"] = {"control": Tally.of(1, 0, 0.5).times(60) + Tally.of(0, 0, 0.5).times(40)}
    found = told.look()
    assert (found.arms[0].units, found.arms[0].mean) == (110, round(70 / 110, 6))


def test_where_nothing_new_is_told_nothing_is_written() -> None:
    told = experiment()
    told.reports("a", "control", 60, 40)
    first = told.look()
    assert told.look() == first


@pytest.mark.parametrize(
    "changed",
    [
        {"experiment": {"metric": "sales"}},
        {"assignment": {"header": "x-user"}, "experiment": {"metric": "clicks"}},
        {"policy": "bandit", "experiment": {"metric": "clicks"}},
    ],
)
def test_another_experiment_begins_at_nothing(changed: Mapping[str, object]) -> None:
    told = experiment()
    told.reports("a", "control", 60, 40)
    before = told.look()
    other = Endpoint.model_validate({"metadata": {"name": "reader", "uid": "1"}, "spec": {"arms": ARMS, **changed}})
    told.endpoint = other.model_copy(update={"status": told.endpoint.status})
    after = told.look()
    assert after.name != before.name
    assert [arm.units for arm in after.arms] == [0, 0]


def test_after_its_time_an_experiment_stands_as_it_is() -> None:
    told = experiment(duration="1h")
    told.reports("a", "control", 1_000, 1_000)
    told.reports("a", "challenger", 1_200, 800)
    over = told.look(3_600)
    assert over.verdict == "concluded after 1h: challenger is better than control by 0.1 (0.0511 to 0.149)"
    told.reports("a", "control", 1_000, 0)
    assert (over.state, told.look()) == ("Concluded", over)
    assert course.look_again_s(over) is None


def test_a_bandit_moves_by_a_step_a_minute_towards_the_better_arm() -> None:
    told = begun(policy="bandit")
    told.reports("a", "control", 50, 450)
    told.reports("a", "challenger", 200, 300)
    told.look(30)
    assert told.weights == {"control": 5_000, "challenger": 5_000}
    told.look(30)
    assert told.weights == {"control": 4_000, "challenger": 6_000}
    told.look(60)
    assert told.weights == {"control": 4_000, "challenger": 6_000}, "nothing new was reported"
    told.reports("a", "challenger", 1, 0)
    told.look(30)
    assert told.weights == {"control": 3_000, "challenger": 7_000}


def test_a_bandit_keeps_the_shares_of_the_spec_until_each_arm_has_told_something() -> None:
    told = begun(policy="bandit")
    told.look(60)
    assert told.weights == {"control": 5_000, "challenger": 5_000}
    told.reports("a", "control", 50, 450)
    told.reports("a", "challenger", 19, 0)
    told.look(60)
    assert told.weights == {"control": 5_000, "challenger": 5_000}
    told.reports("a", "challenger", 20, 0)
    told.look(60)
    assert told.weights == {"control": 4_000, "challenger": 6_000}


def test_a_bandit_stays_where_it_is_while_an_arm_is_away() -> None:
    told = begun(policy="bandit")
    told.reports("a", "control", 50, 450)
    told.reports("a", "challenger", 200, 300)
    told.complete = False
    told.look(60)
    assert told.weights == {"control": 5_000, "challenger": 5_000}


def test_a_bandit_takes_out_the_arm_that_is_shown_to_be_worse_and_it_stays_out() -> None:
    told = begun(policy="bandit")
    told.reports("a", "control", 1_500, 500)
    told.reports("a", "challenger", 500, 1_500)
    out = told.look(60)
    assert told.weights == {"control": FULL_WEIGHT, "challenger": 0}
    assert out.arms[1].out == "worse by 0.457 at least"
    assert [event.reason for event in told.events] == ["DifferenceFound", "ArmTakenOut"]
    told.reports("a", "challenger", 1_000, 0)
    told.look(60)
    assert told.weights == {"control": FULL_WEIGHT, "challenger": 0}


def test_a_bandit_whose_outcomes_are_lost_on_one_side_stays_where_it_is() -> None:
    told = begun(policy="bandit")
    told.reports("a", "control", 1_500, 500)
    told.reports("a", "challenger", 1_400, 0)
    blocked = told.look(60)
    assert blocked.verdict == (
        "the sample ratio is off: of challenger there are 0.7 times as many as of control for the shares they had; "
        "no conclusion, find out whose outcomes are lost"
    )
    assert told.weights == {"control": 5_000, "challenger": 5_000}


def test_the_effect_is_right_although_shares_followed_the_outcomes() -> None:
    random, told = np.random.default_rng(1), begun(policy="bandit")
    for _ in range(60):
        for arm, chance in (("control", 0.3), ("challenger", 0.4)):
            share = told.weights[arm] / FULL_WEIGHT
            units = round(500 * share)
            ones = int(random.binomial(units, chance))
            told.reports("a", arm, ones, units - ones, share)
        last = told.look(60)
    seen = last.arms[1].effect
    assert seen is not None
    assert seen.low < 0.1 < seen.high
    assert seen.value == pytest.approx(0.1, abs=0.03)
    assert told.weights == {"control": 1_000, "challenger": 9_000}
