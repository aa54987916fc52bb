"""The seam between the server and whatever computes: an engine holds one loaded artifact."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from serving.errors import InvalidInput
from serving.tensors import Array, Signature


class Interrupt:
    """Stops one running inference from another thread."""

    __slots__ = ("_stop", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._stop: Callable[[], None] | None = None

    def arm(self, stop: Callable[[], None]) -> None:
        """Called by the engine with what stops it; at once when the interrupt has already fired."""
        self._stop = stop
        if self.fired:
            stop()

    def fire(self) -> None:
        """Asks the engine to stop; harmless when it has ended."""
        self.fired = True
        if self._stop is not None:
            self._stop()


class Engine(Protocol):
    """One loaded artifact. ``infer`` may be called by one thread at a time."""

    @property
    def platform(self) -> str:
        """The name under which model metadata shows the engine, as Triton writes it."""

    @property
    def signature(self) -> Signature:
        """The inputs it needs and the outputs it gives."""

    @property
    def may_loop(self) -> bool:
        """Whether the time of an inference can depend on the values of its inputs without bound."""

    @property
    def may_block(self) -> bool:
        """Whether a call can take any time whatever the first ones took, so that the event loop must not make one."""

    @property
    def problem(self) -> str:
        """Why it cannot answer now, as the end of "model 'm' is not ready: …"; empty when it can."""

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        """The outputs asked for (one or more), in that order, as C-contiguous arrays.

        ``inputs`` fit the signature. InvalidInput or InferenceFailed when it cannot be computed;
        after ``interrupt`` fired it raises one of them soon.
        """

    def close(self) -> None:
        """Frees what the engine holds."""


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that may answer one request with several responses, or with none.

    ``infer`` is then for calls that have room for one response (``once`` makes it from ``stream``).
    """

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt
    ) -> Generator[list[Array], None, None]:
        """The responses one by one, each as ``infer`` gives its one; the same errors, before or between them.

        Unlike ``infer`` it may be called by several threads at once, each of which drives its own generator
        to the end or closes it.
        """


def once(responses: Generator[list[Array], None, None]) -> list[Array]:
    """The one response of a stream; InvalidInput when it has another number of them."""
    with contextlib.closing(responses):
        first = next(responses, None)
        if first is None:
            raise InvalidInput(f"the model gave no response to this request, expected exactly one; {_ELSEWHERE}")
        if next(responses, None) is not None:
            raise InvalidInput(f"the model gives more than one response to this request; {_ELSEWHERE}")
        return first


_ELSEWHERE = "ask with generate_stream or ModelStreamInfer, which take any number"
