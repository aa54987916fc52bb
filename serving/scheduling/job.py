"""A request on its way through the queue, and the call of the engine that it shares with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from serving.engines.base import Interrupt
from serving.errors import ServingError
from serving.requests import Request, Response
from serving.tensors import Array, TensorSpec

DEFAULT_PRIORITY = 100
"""What a request counts as that does not say: there is room before it and behind it."""

Result = Response | ServingError
Done = Callable[["Job", Result], None]
Key = tuple[tuple[int, ...], ...]


class Call:
    """One call of the engine, as each request that took part knows it. Times are of ``time.perf_counter``."""

    __slots__ = ("begun", "ended", "requests", "rows")

    def __init__(self, requests: int, rows: int, begun: float) -> None:
        self.requests = requests
        self.rows = rows
        self.begun = begun
        self.ended = begun


class Way(NamedTuple):
    """What a job noted of its way, without what it carries: see ``Job`` and ``Call``."""

    submitted: float
    begun: float
    ended: float
    rows: int
    call: Call | None
    cached: bool = False
    """Whether it got an answer that was kept, and never came to the engine."""


class Batch:
    """The requests that share a call of the engine."""

    __slots__ = ("call", "interrupt", "jobs", "stopped")

    def __init__(self, jobs: list[Job], interrupt: Interrupt | None, begun: float) -> None:
        self.jobs = jobs
        self.interrupt = interrupt
        self.call = Call(len(jobs), sum([job.rows for job in jobs]), begun)
        self.stopped: float | None = None
        """When the engine was told to stop it."""

    def is_abandoned(self) -> bool:
        """Whether nobody waits for its outcome any more."""
        return all(job.answered for job in self.jobs)

    def stop(self, now: float) -> None:
        """Tells the engine to end it; once is enough."""
        if self.stopped is None and self.interrupt is not None:
            self.stopped = now
            self.interrupt.fire()


class Job:
    """A request on its way through the queue."""

    cached = False
    """Whether its answer was kept; of the class, so that it costs no request anything."""
    __slots__ = (
        "allowed_s",
        "answered",
        "begun",
        "call",
        "deadline",
        "done",
        "ended",
        "gone",
        "inputs",
        "interrupt",
        "key",
        "outputs",
        "priority",
        "request",
        "rows",
        "size_bytes",
        "submitted",
        "withdraw",
    )

    def __init__(
        self,
        request: Request,
        inputs: dict[str, Array],
        outputs: Sequence[TensorSpec],
        submitted: float,
        deadline: float,
        done: Done,
        withdraw: Callable[[Job], None],
    ) -> None:
        self.request = request
        self.inputs = inputs
        self.outputs = outputs
        self.submitted = submitted
        self.deadline = deadline
        self.done = done
        self.withdraw = withdraw
        self.priority = request.priority or DEFAULT_PRIORITY
        self.rows = 1
        self.key: Key | None = None
        """Requests with the same key may share a call; None: this one goes alone."""
        self.size_bytes = 0
        self.allowed_s = 0.0
        """How long it may take, counted from its last byte."""
        self.begun = submitted
        self.ended = submitted
        self.call: Call | None = None
        """The last call that it took part in."""
        self.answered = False
        self.gone = False
        """Its client has gone."""
        self.interrupt: Interrupt | None = None
        """What ends it alone, where nobody shares its call: that of a stream."""

    def way(self) -> Way:
        """What may be kept of it longer than its tensors."""
        return Way(self.submitted, self.begun, self.ended, self.rows, self.call, self.cached)

    def cancel(self) -> None:
        """The client has gone: the request leaves the queue; the engine is stopped if it computes for nobody else."""
        if not self.answered:
            self.withdraw(self)
