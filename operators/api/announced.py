"""What programs are told of rollouts and experiments: steps from 1 and percents, as people see them.

In ``.status``, which the operator remembers by, steps count from 0 and weights are units of 0.01 %. No imports of
types: the command line starts with this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WEIGHTS = ("target", "weight", "observed")
_MEMORY = ("evidence", "trail", "memory", "marks")
"""What only the operator needs, and much of it."""


def percent(weight: float) -> float:
    """A weight in units of 0.01 % as percent."""
    return weight / 100


def rollout(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the ``rollout`` of a Model's status as JSON; None where there was none.

    ``step`` is the present one of ``steps``, or the last; ``target``, ``weight`` and ``observed`` are percent.
    """
    if not status:
        return None
    said = _weighted(status)
    return said | {"step": min(status.get("step", 0) + 1, status.get("steps", 0)), "steps": status.get("steps", 0)}


def experiment(status: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the ``experiment`` of an Endpoint's status as JSON; None where there is none.

    ``weight`` of an arm is percent.
    """
    return _weighted(status) | {"arms": weighted(status.get("arms", ()))} if status else None


def weighted(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Arms or revisions as JSON, their ``weight`` in percent."""
    return [_weighted(part) for part in parts]


def _weighted(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in status.items() if key not in _MEMORY}
    return kept | {key: percent(kept[key]) for key in _WEIGHTS if isinstance(kept.get(key), int)}
