"""What the parameters of a request mean, the same for REST and gRPC.

Those this server acts on are checked; any other is carried with the request and never refused. ``priority``
and ``timeout`` are Triton's: 1 is the highest priority and 0 the model's default, a timeout counts
microseconds and 0 says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from serving import tensors
from serving.errors import InvalidInput, Unsupported

NONE: Mapping[str, Any] = {}
_MAX_PRIORITY = 2**64 - 1
_MAX_TIMEOUT_US = 2**63 - 1


class Schedule(NamedTuple):
    """When a request wants to be computed."""

    priority: int = 0
    timeout_s: float | None = None


WHENEVER = Schedule()
"""A request that says nothing about it."""


def schedule(parameters: Mapping[str, Any]) -> Schedule:
    """The priority and the time limit that a request's parameters ask for."""
    if "priority" not in parameters and "timeout" not in parameters:
        return WHENEVER
    timeout_us = _count(parameters, "timeout", _MAX_TIMEOUT_US, "a number of microseconds from 0 up")
    priority = _count(parameters, "priority", _MAX_PRIORITY, "a whole number from 0 up; 1 is the highest")
    return Schedule(priority, timeout_us / 1e6 if timeout_us else None)


def classes(output: str, parameters: Mapping[str, Any]) -> int:
    """How many classes an output is asked for with the parameter ``classification``; 0: the tensor itself."""
    given = parameters.get("classification", 0)
    if type(given) is not int or not 0 <= given < 2**31:
        raise InvalidInput(
            f"output '{output}' has the parameter classification {tensors.brief(given)}, "
            "expected how many classes are wanted"
        )
    return given


def no_shared_memory(kind: str, name: str, parameters: Mapping[str, Any]) -> None:
    """Unsupported when a tensor's bytes are said to be in shared memory."""
    if "shared_memory_region" in parameters:
        raise Unsupported(f"{kind} '{name}' names shared memory, which this server does not have")


def _count(parameters: Mapping[str, Any], name: str, most: int, expected: str) -> int:
    given = parameters.get(name, 0)
    if type(given) is not int or not 0 <= given <= most:
        raise InvalidInput(f"the parameter {name} is {tensors.brief(given)}, expected {expected}")
    return given
