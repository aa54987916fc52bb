from typing import Any

import pytest

from serving.errors import InvalidInput, Unsupported
from serving.protocols import options
from serving.protocols.options import Schedule


@pytest.mark.parametrize(
    ("parameters", "schedule"),
    [
        ({}, Schedule(priority=0, timeout_s=None)),
        ({"anything": "else", "sequence_id": 7, "sequence_start": True}, Schedule(priority=0, timeout_s=None)),
        ({"priority": 0, "timeout": 0}, Schedule(priority=0, timeout_s=None)),
        ({"priority": 2**64 - 1}, Schedule(priority=2**64 - 1, timeout_s=None)),
        ({"timeout": 1}, Schedule(priority=0, timeout_s=1e-6)),
        ({"priority": 1, "timeout": 2_500_000}, Schedule(priority=1, timeout_s=2.5)),
    ],
)
def test_a_timeout_counts_microseconds_and_zero_says_nothing(parameters: dict[str, Any], schedule: Schedule) -> None:
    assert options.schedule(parameters) == schedule


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", None, 2**64])
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_a_priority_or_timeout_that_is_no_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^the parameter {name} is .*, expected a (whole )?number.* from 0 up"):
        options.schedule({name: value})


@pytest.mark.parametrize("value", [-1, 2**31, 1.0, True, "3", None])
def test_a_classification_that_is_no_number_of_classes_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        options.classes("y", {"classification": value})

    assert str(refused.value) == (
        f"output 'y' has the parameter classification {value!r}, expected how many classes are wanted"
    )


def test_shared_memory_is_told_to_be_missing() -> None:
    with pytest.raises(Unsupported, match=r"^input 'x' names shared memory, which this server does not have$"):
        options.no_shared_memory("input", "x", {"shared_memory_region": "r"})
