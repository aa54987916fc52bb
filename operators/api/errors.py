"""Errors of the operator side.

OperatorError
├── InvalidObject      an object cannot be accepted: names the object, each field, its value, the next step
├── NotFound           an object that was asked for does not exist
├── Conflict           somebody else changed the object since it was read
└── Unreachable        the API, a child process or the router does not answer
"""

from __future__ import annotations

from collections.abc import Sequence

Path = tuple[str | int, ...]
"""Of a field in an object: names, and places in lists."""


class OperatorError(Exception):
    """Base of all errors that ``operators`` raises."""


class InvalidObject(OperatorError):
    """An object cannot be accepted; the message names object, field, value and next step."""

    def __init__(self, message: str, paths: Sequence[Path] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)
        """The fields that the message speaks of, in its order."""


class NotFound(OperatorError):
    """The object does not exist."""


class Conflict(OperatorError):
    """The object changed since it was read; read it again and decide anew."""


class Unreachable(OperatorError):
    """The API, a child process or the router does not answer."""
