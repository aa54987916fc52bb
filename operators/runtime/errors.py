"""What can go wrong between an operator and its API server.

::

    ClusterError (an OperatorError)
    ├── BadConfiguration   no usable kubeconfig or service account
    ├── Unreachable        no answer, or an answer that broke off: try again
    ├── Garbled            an answer that is not what the protocol says: start afresh
    ├── Fenced             a write by somebody who does not hold the lease
    └── ApiError           the API server says no
        ├── Unauthorized   401
        ├── NotFound       404
        ├── Conflict       409: it exists already, or is not the one that was read
        └── Gone           410: the resource version is too old to go on from
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operators.api.errors import OperatorError


class ClusterError(OperatorError):
    """Any failure to speak with the cluster."""


class BadConfiguration(ClusterError):
    """There is no usable kubeconfig or service account."""


class Unreachable(ClusterError):
    """No answer came, or it broke off half-way; whether a write took place is unknown."""


class Garbled(ClusterError):
    """The answer is not what the Kubernetes API sends; something in between speaks instead."""


class Fenced(ClusterError):
    """A write was held back because this process does not lead."""


class ApiError(ClusterError):
    """The API server refused: ``status`` is the HTTP code, ``reason`` Kubernetes' CamelCase word for it, ``message``
    its sentence.
    """

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{what}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Unauthorized(ApiError):
    """401, with the newest credentials there are."""


class NotFound(ApiError):
    """404: no such object, or no such resource (yet)."""


class Conflict(ApiError):
    """409: it exists already, or a precondition (uid, resourceVersion) does not hold."""


class Gone(ApiError):
    """410: too old a resource version; list again."""


_BY_STATUS: Mapping[int, type[ApiError]] = {401: Unauthorized, 404: NotFound, 409: Conflict, 410: Gone}


def refused(what: str, status: int, body: Mapping[str, Any]) -> ApiError:
    """The error for a ``Status`` body (or any other) that came with HTTP code ``status``."""
    kind = _BY_STATUS.get(status, ApiError)
    return kind(what, status, str(body.get("reason", "")), str(body.get("message", "")))
