"""Reports of outcomes, added up. How they get here is in ``tests/local/test_outcomes.py``."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from operators.api.outcomes import Tally, Told
from operators.api.plan import Outcomes, Split
from operators.router import collecting
from operators.router.collecting import Collector

KEY = "default/reader"


def split(experiment: str = "1a", metric: str = "clicks") -> Split:
    shares, taken = (("a", 7_500), ("b", 2_500)), Outcomes(experiment, metric, ("control", "new"))
    return Split("default", "reader", shares, None, {}, taken)


def collector(*given: Split) -> tuple[Collector, dict[str, Split]]:
    endpoints = {f"{one.namespace}/{one.name}": one for one in given}
    return Collector(lambda: endpoints, "source"), endpoints


def take(to: Collector, given: str, **said: Any) -> tuple[int, str | bool]:
    answer = to.take(KEY, "", json.dumps({"id": given, "value": 1} | said).encode())
    return answer.status, answer.body.get("error") or answer.body["counted"]


def test_a_report_is_added_to_its_arm_with_the_share_that_the_arm_had() -> None:
    to, _ = collector(split())
    assert take(to, "control.7500.1a.1", value=0.5, covariate=2) == (200, True)
    assert take(to, "new.2500.1a.2", value=True) == (200, True)
    assert to.told(KEY) == {
        "source": Told("1a", {"control": Tally.of(0.5, 2, 0.75), "new": Tally.of(1, 0, 0.25)}),
    }


def test_a_unit_counts_once_also_under_another_arm() -> None:
    to, _ = collector(split())
    assert [take(to, given) for given in ("control.7500.1a.1", "control.7500.1a.1", "new.2500.1a.1")] == [
        (200, True),
        (200, False),
        (200, False),
    ]


def test_as_many_units_as_are_promised_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "REMEMBERED", 3)
    to, _ = collector(split())
    for unit in range(7):
        assert take(to, f"control.7500.1a.{unit}") == (200, True)
    assert [take(to, f"control.7500.1a.{unit}")[1] for unit in (4, 5, 6)] == [False, False, False]
    assert take(to, "control.7500.1a.0") == (200, True)


def test_a_hundred_thousand_units_are_remembered_in_less_than_thirty_megabytes() -> None:
    to, _ = collector(split())
    tracemalloc.start()
    for unit in range(2 * collecting.REMEMBERED):
        to.take(KEY, f"control.7500.1a.{unit:036}", b'{"value": 1}')
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 60e6, "twice as many may be there for a while"


def test_another_experiment_begins_at_nothing_and_takes_no_answers_of_the_one_before() -> None:
    to, endpoints = collector(split())
    take(to, "control.7500.1a.1")
    endpoints[KEY] = split("2b")
    assert to.told(KEY) == {"source": Told("2b", {})}
    assert take(to, "control.7500.1a.2") == (200, False)
    endpoints.clear()
    assert to.told(KEY) == {}
    assert take(to, "control.7500.2b.3")[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"id": "control.7500.1a.1"}', 400),
        (b'{"id": "control.7500.1a.1", "value": 1, "weight": 2}', 400),
        (b'{"id": "control.7500.1a.1", "value": NaN}', 400),
        (b'{"id": "control.7500.1a.1", "value": 1e10}', 400),
        (b'{"value": 1}', 400),
        (b'{"id": "control.0.1a.1", "value": 1}', 400),
        (b'{"id": "control.10001.1a.1", "value": 1}', 400),
        (b'{"id": "control.7500.1a", "value": 1}', 400),
        (b'{"id": "other.7500.1a.1", "value": 1}', 404),
    ],
)
def test_what_is_no_report_is_refused_and_counted_nowhere(body: bytes, status: int) -> None:
    to, _ = collector(split())
    assert to.take(KEY, "", body).status == status
    assert to.told(KEY) == {"source": Told("1a", {})}
