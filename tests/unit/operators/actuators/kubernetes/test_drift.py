from __future__ import annotations

from typing import Any

import pytest

from operators.actuators.kubernetes import drift


@pytest.mark.parametrize(
    ("wanted", "live", "expected"),
    [
        ({"a": 1}, {"a": 1, "foreign": 2}, False),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {}, True),
        ({"a": {}}, {}, False),
        ({"requests": {"memory": "1024Mi", "cpu": "0.5"}}, {"requests": {"memory": "1Gi", "cpu": "500m"}}, False),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "2Gi"}}, True),
        ({"image": "1024Mi"}, {"image": "1Gi"}, True),
        ([{"name": "b", "v": 1}], [{"name": "a"}, {"name": "b", "v": 1, "added": True}], False),
        ([{"name": "b", "v": 1}], [{"name": "a", "v": 1}], True),
        (["x", "y"], ["x", "z"], True),
        (["x"], None, True),
        ([], None, False),
    ],
)
def test_only_wanted_fields_are_compared(wanted: Any, live: Any, expected: bool) -> None:
    assert drift.differs(wanted, live) is expected


def test_a_field_that_is_wanted_no_more_shows_in_the_stamp() -> None:
    before = drift.stamped({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}})
    after = drift.stamped({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert drift.differs(after, before)
    assert not drift.differs(after, after)
