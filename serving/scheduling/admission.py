"""Who may wait: what the whole process may hold, and when a model's queue is no burst any more but too much work.

A queue that is long for a moment is welcome: it is a burst, and every request of it is answered soon. A queue that
stays full gains nothing: each answer comes later, none more. The two look alike at any one moment, so ``Pressure``
looks at refusals over time. The bound is generous: ``limits.maxPending``, or else ``MANY`` requests and however many
more are answered within ``BRIEF_S``, since a quick model meets 128 of them in a pause of the machine. Once a queue at
its bound has refused
requests for a whole interval (100 ms or three calls of the engine, the longer), with no pause as long as that, it is
*pressed*: from then on only the next call of the engine may be waited for (``slack``), and who waits beyond it is
sent away. A pause of one interval without refusals ends it.

Clients that wait for an answer before they send again never meet this, as long as there are fewer of them than the
bound: then nothing is refused, however long the queue stands. That is the difference to controlled delay (CoDel),
which would send most of them away.
"""

from __future__ import annotations

import math

from serving.errors import Overloaded

INTERVAL_S = 0.1
INTERVAL_CALLS = 3
MANY = 128
"""Requests that may wait for any model, however long that takes."""
BRIEF_S = 0.25
"""Work that may wait for any model, however many requests that is."""
SLACK_CALLS = 6
"""Calls that may be waited for by requests that go alone: so many that arrivals at random leave the engine no gap."""
TOO_MUCH = "gets more requests than it can answer; send again later, or give it more replicas"


class Admission:
    """What the requests in work of a whole process may take together, whatever protocol they came by."""

    __slots__ = ("bytes", "max_bytes", "max_requests", "requests")

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        """Begun and not answered, of all models."""
        self.bytes = 0
        """Of their bodies, and of those still arriving."""

    def refusal(self) -> Overloaded | None:
        """Why no further request can be taken; None when one can."""
        if self.requests >= self.max_requests:
            return Overloaded(
                f"the server has {self.requests} requests in work, its limit (--max-requests); send again later"
            )
        return None

    def hold(self, size_bytes: int) -> Overloaded | None:
        """Takes on so many bytes more, to be taken off ``bytes`` again; or says why they cannot be held."""
        if self.bytes + size_bytes > self.max_bytes:
            return Overloaded("the server holds as many bytes of unanswered requests as it may; send again later")
        self.bytes += size_bytes
        return None


class Bounds:
    """How much may wait for one model version."""

    __slots__ = ("brief_s", "max_bytes", "max_requests", "slack")

    def __init__(self, max_requests: int | None, max_bytes: int, max_rows: int) -> None:
        """Without ``max_requests``: ``MANY``, and more where they wait no longer than ``BRIEF_S``."""
        self.max_requests = MANY if max_requests is None else max_requests
        self.brief_s = BRIEF_S if max_requests is None else 0.0
        self.max_bytes = max_bytes
        self.slack = max_rows if max_rows > 1 else SLACK_CALLS
        """Rows that may wait where the model is pressed: one full call, which is the next."""

    def refusal(
        self, requests: int, held_bytes: int, size_bytes: int, waiting_rows: int, wait_s: float, pressed: bool
    ) -> str | None:
        """Why a request of ``size_bytes`` cannot be taken beside those there are, from its verb on; None when it can.

        ``requests`` and ``held_bytes`` are those not answered yet, ``waiting_rows`` are of those not begun, which take
        about ``wait_s``.
        """
        if requests >= self.max_requests and wait_s >= self.brief_s:
            return f"has {requests} requests waiting, its limit; send again later, or raise limits.maxPending"
        if requests and held_bytes + size_bytes > self.max_bytes:
            return (
                f"has {held_bytes} bytes waiting, this request has {size_bytes}; the limit is {self.max_bytes}: "
                "send again later, or raise limits.maxPendingBytes"
            )
        return TOO_MUCH if pressed and waiting_rows >= self.slack else None


class Pressure:
    """Whether a queue has been refusing requests for so long that waiting in it helps nobody."""

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._since = -math.inf
        self._last = -math.inf

    def refused(self, now: float, interval_s: float) -> None:
        """Notes that a request was refused."""
        if now - self._last > interval_s:
            self._since = now
        self._last = now

    def stands(self, now: float, interval_s: float) -> bool:
        """Whether requests were refused throughout the last interval, and more."""
        return now - self._last <= interval_s <= self._last - self._since


def interval_s(call_s: float) -> float:
    """How long refusals must go on, and must be absent, for a model whose engine takes ``call_s`` for a call."""
    return max(INTERVAL_S, INTERVAL_CALLS * call_s)
