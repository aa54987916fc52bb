"""Event loops whose clock does not run like the wall's, so that minutes of waiting need not be waited out.

``virtual``: time stands still while anything can run and jumps to the next timer when nothing can. Exact and
repeatable, but blind to sockets: for code that does no I/O. ``hurried``: time runs ``speed`` times as fast.
Sockets work, so the code under test keeps its real timing against real servers, which only seem slower to it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

Ready = list[tuple[selectors.SelectorKey, int]]


class _Jumping(selectors.SelectSelector):
    """Spends the time it is told to wait without waiting."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> Ready:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing can run and no timer is set")
            self.passed_s += timeout
        return ready


class _Virtual(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed_s


class _Hurrying(selectors.DefaultSelector):
    speed = 1.0

    def select(self, timeout: float | None = None) -> Ready:
        return super().select(timeout if timeout is None else timeout / self.speed)


class _Hurried(asyncio.SelectorEventLoop):
    def __init__(self, speed: float) -> None:
        selector = _Hurrying()
        selector.speed = self._speed = speed
        super().__init__(selector)

    def time(self) -> float:
        return super().time() * self._speed


def virtual(scenario: Coroutine[Any, Any, T]) -> T:
    """Run ``scenario`` from time 0 without waiting for anything."""
    with asyncio.Runner(loop_factory=_Virtual) as runner:
        return runner.run(scenario)


def hurried(scenario: Coroutine[Any, Any, T], speed: float) -> T:
    """Run ``scenario`` with a clock that is ``speed`` times as fast as the wall's."""
    with asyncio.Runner(loop_factory=lambda: _Hurried(speed)) as runner:
        return runner.run(scenario)
