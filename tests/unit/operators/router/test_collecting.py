"""Reports of outcomes, added up. How they get here is in ``tests/local/test_outcomes.py``."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from operators.api.endpoint import Assignment
from operators.api.outcomes import Tally, Told
from operators.api.plan import Arm, Counts, Outcomes, Split
from operators.router import collecting
from operators.router.collecting import Collector
from operators.router.table import Places, Table

KEY, MODEL = "default/reader", "default/a"


def split(experiment: str = "1a", metric: str = "clicks", assignment: Assignment | None = None) -> Split:
    shares, taken = (("a", 7_500), ("b", 2_500)), Outcomes(experiment, metric, ("control", "new"))
    return Split("default", "reader", shares, assignment, {}, taken)


STABLE, NEW = Arm("a-r1-fp32", "r1", "fp32", 9_000), Arm("a-r2-fp32", "r2", "fp32", 1_000)


def judging(a: Arm, b: Arm | None = None, feedback: bool = True) -> Collector:
    """Of Model ``a``, which is an arm of the Endpoint, too."""
    table = Table({MODEL: Places(a, b, feedback=feedback)}, {KEY: Split("default", "reader", (("a", 10_000),))})
    return Collector(lambda: table, "source")


def judge(to: Collector, given: str, correct: object = True, key: str = MODEL) -> tuple[int, str | bool]:
    answer = to.judge(key, json.dumps({"id": given, "correct": correct}).encode())
    return answer.status, answer.body.get("error") or answer.body["counted"]


def collector(*given: Split) -> tuple[Collector, dict[str, Split]]:
    endpoints = {f"{one.namespace}/{one.name}": one for one in given}
    return Collector(lambda: Table({MODEL: Places()}, endpoints), "source"), endpoints


def unit(number: int) -> str:
    """As HAProxy's ``uuid()`` writes one."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def take(to: Collector, given: str, **said: Any) -> tuple[int, str | bool]:
    answer = to.take(KEY, "", json.dumps({"id": given, "value": 1} | said).encode())
    return answer.status, answer.body.get("error") or answer.body["counted"]


def test_a_report_is_added_to_its_arm_with_the_share_that_the_arm_had() -> None:
    to, _ = collector(split())
    assert take(to, f"control.7500.1a.{unit(1)}", value=0.5, covariate=2) == (200, True)
    assert take(to, f"new.2500.1a.{unit(2)}", value=1) == (200, True)
    assert to.told(KEY) == {
        "source": Told("1a", {"control": Tally.of(0.5, 2, 0.75), "new": Tally.of(1, 0, 0.25)}),
    }


def test_a_unit_counts_once_also_under_another_arm() -> None:
    to, _ = collector(split())
    assert [
        take(to, given)
        for given in (f"control.7500.1a.{unit(1)}", f"control.7500.1a.{unit(1)}", f"new.2500.1a.{unit(1)}")
    ] == [
        (200, True),
        (200, False),
        (200, False),
    ]


def test_as_many_units_as_are_promised_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "REMEMBERED", 3)
    to, _ = collector(split())
    for number in range(7):
        assert take(to, f"control.7500.1a.{unit(number)}") == (200, True)
    assert [take(to, f"control.7500.1a.{unit(number)}")[1] for number in (4, 5, 6)] == [False, False, False]
    assert take(to, f"control.7500.1a.{unit(0)}") == (200, True)


def test_a_hundred_thousand_units_are_remembered_in_less_than_thirty_megabytes() -> None:
    to, _ = collector(split())
    tracemalloc.start()
    for number in range(2 * collecting.REMEMBERED):
        to.take(KEY, f"control.7500.1a.{unit(number)}", b'{"value": 1}')
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 60e6, "twice as many may be there for a while"


def test_another_experiment_begins_at_nothing_and_takes_no_answers_of_the_one_before() -> None:
    to, endpoints = collector(split())
    take(to, f"control.7500.1a.{unit(1)}")
    endpoints[KEY] = split("2b")
    assert to.told(KEY) == {"source": Told("2b", {})}
    assert take(to, f"control.7500.1a.{unit(2)}") == (200, False)
    endpoints.clear()
    assert to.told(KEY) == {}
    assert take(to, f"control.7500.2b.{unit(3)}")[0] == 404


GOOD = f'{{"id": "control.7500.1a.{unit(1)}"'.encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (GOOD + b"}", 400),
        (GOOD + b', "value": 1, "weight": 2}', 400),
        (GOOD + b', "value": NaN}', 400),
        (GOOD + b', "value": 1e10}', 400),
        (GOOD + b', "value": true}', 400),
        (GOOD + b', "value": "1"}', 400),
        (GOOD + b', "value": 1, "covariate": "1"}', 400),
        (b'{"value": 1}', 400),
        (GOOD.replace(b"7500", b"0") + b', "value": 1}', 400),
        (GOOD.replace(b"7500", b"10001") + b', "value": 1}', 400),
        (b'{"id": "control.7500.1a", "value": 1}', 400),
        (b'{"id": "control.7500.1a.1", "value": 1}', 400),
        (GOOD.replace(b"-4000-", b"-1000-") + b', "value": 1}', 400),
        (GOOD.replace(b"control", b"other") + b', "value": 1}', 404),
    ],
)
def test_what_is_no_report_is_refused_and_counted_nowhere(body: bytes, status: int) -> None:
    to, _ = collector(split())
    assert to.take(KEY, "", body).status == status
    assert to.told(KEY) == {"source": Told("1a", {})}


def test_the_hash_of_a_client_is_a_unit_only_where_clients_keep_their_arms() -> None:
    for assignment, status in ((None, 400), (Assignment(header="x-user"), 200)):
        to, _ = collector(split(assignment=assignment))
        for given in ("8412957340237195522", "-17"):
            assert take(to, f"control.7500.1a.{given}")[0] == status
    assert take(to, "control.7500.1a.12345678901234567890")[0] == 400


def test_what_counts_no_outcomes_is_named_with_the_next_step() -> None:
    to, endpoints = collector(split())
    endpoints["default/plain"] = Split("default", "plain", (("a", 10_000),))
    answers = [to.take(key, "", b"{}") for key in ("default/plain", MODEL, "default/none")]
    assert [(answer.status, answer.body["error"]) for answer in answers] == [
        (
            404,
            "endpoint default/plain counts no outcomes: its spec has no experiment and no policy: bandit, or the time "
            "of its experiment is over; set spec.experiment",
        ),
        (
            404,
            "model default/a counts no outcomes: name an Endpoint that has it as an arm and a spec.experiment",
        ),
        (404, "default/none is no Model and no Endpoint; `penstock get endpoints` lists what may be named"),
    ]


def test_feedback_is_told_by_workload_once_enough_is_there_of_each_that_has_traffic() -> None:
    to = judging(STABLE, NEW)
    assert to.judged(MODEL) == {"a-r1-fp32": Counts(), "a-r2-fp32": Counts()}
    for number in range(collecting.BATCH + 5):
        assert judge(to, f"a-r1-fp32.{unit(number)}", number > 1) == (200, True)
    assert to.judged(MODEL) == {"a-r1-fp32": Counts(), "a-r2-fp32": Counts()}, "nothing to compare it with"
    assert judge(to, f"a-r2-fp32.{unit(99)}", False, KEY) == (200, True)
    assert to.judged(MODEL) == {
        "a-r1-fp32": Counts(judged=collecting.BATCH + 5, wrong=2),
        "a-r2-fp32": Counts(judged=1, wrong=1),
    }


def test_an_answer_is_judged_once() -> None:
    to = judging(STABLE)
    said = [judge(to, f"a-r1-fp32.{unit(number // 2)}") for number in range(2 * collecting.BATCH)]
    assert said == [(200, True), (200, False)] * collecting.BATCH
    assert to.judged(MODEL) == {"a-r1-fp32": Counts(judged=collecting.BATCH)}


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "the body: Invalid JSON"),
        (b'{"correct": true}', 400, "id: Field required"),
        (b'{"id": "ID"}', 400, "correct: Field required"),
        (b'{"id": "ID", "correct": 1}', 400, "correct: Input should be a valid boolean"),
        (b'{"id": "ID", "correct": "true"}', 400, "correct: Input should be a valid boolean"),
        (b'{"id": "ID", "correct": true, "value": 1}', 400, "value: Extra inputs are not permitted"),
        (b'{"id": "a-r1-fp32", "correct": true}', 400, "id: 'a-r1-fp32' is no penstock-request-id of default/a;"),
        (b'{"id": "a-r1-fp32.1", "correct": true}', 400, "id: 'a-r1-fp32.1' is no penstock-request-id of default/a;"),
        (b'{"id": "control.5000.ID", "correct": true}', 400, "id: 'control.5000.a-r1-fp32.0"),
        (
            b'{"id": "x-ID", "correct": true}',
            404,
            "id: no revision of default/a that answers now is x-a-r1-fp32; these are: a-r1-fp32; what has gone",
        ),
    ],
)
def test_what_is_no_feedback_is_refused_and_counted_nowhere(body: bytes, status: int, why: str) -> None:
    to = judging(STABLE)
    answer = to.judge(MODEL, body.replace(b"ID", f"a-r1-fp32.{unit(1)}".encode()))
    assert (answer.status, str(answer.body["error"])[: len(why)]) == (status, why)
    assert to.judged(MODEL) == {"a-r1-fp32": Counts()}


def test_what_takes_no_feedback_is_named_with_the_next_step() -> None:
    to = judging(STABLE, feedback=False)
    assert [judge(to, f"a-r1-fp32.{unit(1)}", key=key) for key in (MODEL, KEY, "default/none")] == [
        (404, "model default/a takes no feedback: set spec.rollout.analysis.feedback"),
        (404, "endpoint default/reader takes no feedback: set spec.rollout.analysis.feedback of one of its Models"),
        (404, "default/none is no Model and no Endpoint; `penstock get models` lists what may be named"),
    ]
    assert to.judged(MODEL) == {}
