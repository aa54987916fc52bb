"""Everything this package raises on purpose, each with its REST status and gRPC code.

::

    ServingError                500  INTERNAL
    ├── InvalidInput            400  INVALID_ARGUMENT
    │   ├── TooLarge            413  RESOURCE_EXHAUSTED
    │   │   ├── TargetTooLong   414  RESOURCE_EXHAUSTED
    │   │   └── HeadersTooLarge 431  RESOURCE_EXHAUSTED
    │   └── TooSlow             408  DEADLINE_EXCEEDED
    ├── UnknownModel            404  NOT_FOUND
    ├── Unsupported             501  UNIMPLEMENTED
    ├── NotReady                503  UNAVAILABLE
    ├── Overloaded              503  UNAVAILABLE
    ├── DeadlineExceeded        504  DEADLINE_EXCEEDED
    ├── Cancelled               499  CANCELLED
    ├── InferenceFailed         500  INTERNAL
    │   └── EngineLost          503  UNAVAILABLE
    ├── ArtifactRefused         400  FAILED_PRECONDITION   exits with Exit.REFUSED
    ├── StorageUnavailable      503  UNAVAILABLE           exits with Exit.UNAVAILABLE
    ├── EnginesHung             503  UNAVAILABLE           exits with Exit.HUNG
    └── PortInUse               500  INTERNAL              exits with Exit.PORT_IN_USE

The protocol layer translates by these two numbers and knows no error by name.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from serving.contract import Exit


class GrpcCode(enum.IntEnum):
    """The gRPC status codes this package answers with."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class ServingError(Exception):
    """Base of all errors of this package; its text is meant for the client."""

    http: ClassVar[int] = 500
    grpc: ClassVar[GrpcCode] = GrpcCode.INTERNAL
    exit: ClassVar[Exit] = Exit.FAILED
    reason: ClassVar[str] = "BACKEND"
    """Triton's label for the failure counter: REJECTED, CANCELED, BACKEND or OTHER."""
    retry_after_s: float | None = None
    """When the same request may fare better: what ``Retry-After`` says, rounded up; None where time changes nothing."""


class InvalidInput(ServingError):
    """The request itself is wrong; the text names what was given and what is expected."""

    http = 400
    grpc = GrpcCode.INVALID_ARGUMENT
    reason = "OTHER"


class TooLarge(InvalidInput):
    """The request has more bytes than the server takes."""

    http = 413
    grpc = GrpcCode.RESOURCE_EXHAUSTED
    reason = "REJECTED"


class TargetTooLong(TooLarge):
    """The request's target is longer than any path of this server."""

    http = 414


class HeadersTooLarge(TooLarge):
    """The request has more headers, or more bytes around its body, than the server takes."""

    http = 431


class TooSlow(InvalidInput):
    """The request did not come within its time; the connection is closed."""

    http = 408
    grpc = GrpcCode.DEADLINE_EXCEEDED


class UnknownModel(ServingError):
    """No such model, or no such version of it."""

    http = 404
    grpc = GrpcCode.NOT_FOUND
    reason = "OTHER"

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"Request for unknown model: '{name}' {detail}")


class Unsupported(ServingError):
    """A part of the protocol that this server does not have."""

    http = 501
    grpc = GrpcCode.UNIMPLEMENTED
    reason = "OTHER"


class NotReady(ServingError):
    """The model is known and cannot answer now."""

    http = 503
    grpc = GrpcCode.UNAVAILABLE
    reason = "REJECTED"


class Overloaded(ServingError):
    """There is more work than can be done; the request was not begun and may be sent again, here or elsewhere."""

    http = 503
    grpc = GrpcCode.UNAVAILABLE
    reason = "REJECTED"

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ServingError):
    """The time limit passed, in the queue or inside the engine."""

    http = 504
    grpc = GrpcCode.DEADLINE_EXCEEDED
    reason = "BACKEND"


class Cancelled(ServingError):
    """The client went away before the answer."""

    http = 499
    grpc = GrpcCode.CANCELLED
    reason = "CANCELED"


class InferenceFailed(ServingError):
    """The engine could not compute an answer to a request that fits its signature."""


class EngineLost(InferenceFailed):
    """The process that held the engine ended before it answered, or is not there yet; it is started again."""

    http = 503
    grpc = GrpcCode.UNAVAILABLE


class ArtifactRefused(ServingError):
    """The artifact is missing, damaged or not safe to load: starting again cannot help."""

    http = 400
    grpc = GrpcCode.FAILED_PRECONDITION
    exit = Exit.REFUSED


class StorageUnavailable(ServingError):
    """Storage did not answer, or the disk is full: trying again may help."""

    http = 503
    grpc = GrpcCode.UNAVAILABLE
    exit = Exit.UNAVAILABLE


class EnginesHung(ServingError):
    """No model answers, and one at least whose engine cannot be stopped: the process has to be replaced."""

    http = 503
    grpc = GrpcCode.UNAVAILABLE
    exit = Exit.HUNG


class PortInUse(ServingError):
    """Another process listens where this one should."""

    exit = Exit.PORT_IN_USE
