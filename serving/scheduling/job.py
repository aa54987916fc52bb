"""A request on its way through the queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.engines.base import Interrupt
from serving.errors import ServingError
from serving.requests import Request, Response
from serving.tensors import Array, TensorSpec

Result = Response | ServingError
Done = Callable[["Job", Result], None]


class Job:
    """A request on its way through the queue."""

    __slots__ = (
        "begun",
        "deadline",
        "done",
        "ended",
        "gone",
        "inputs",
        "interrupt",
        "outputs",
        "request",
        "size_bytes",
        "submitted",
    )

    def __init__(
        self,
        request: Request,
        inputs: dict[str, Array],
        outputs: Sequence[TensorSpec],
        submitted: float,
        deadline: float,
        done: Done,
    ) -> None:
        self.request = request
        self.inputs = inputs
        self.outputs = outputs
        self.submitted = submitted
        self.deadline = deadline
        self.done = done
        self.begun = submitted
        self.ended = submitted
        self.gone = False
        self.size_bytes = 0
        self.interrupt: Interrupt | None = None

    def cancel(self) -> None:
        """The client has gone: the request is dropped, or interrupted if the engine has it."""
        self.gone = True
        if self.interrupt is not None:
            self.interrupt.fire()
