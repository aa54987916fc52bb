"""The seam between deciding and doing: two implementations, ``kubernetes`` and ``process``."""

from __future__ import annotations

from typing import Protocol

from operators.api.plan import Key, Observation, Plan


class Actuator(Protocol):
    """Sees and changes the world for one object at a time. Level-triggered: acting twice changes nothing."""

    async def observe(self, key: Key) -> Observation:
        """What exists for ``key`` now, from caches; facts only."""

    async def act(self, key: Key, plan: Plan) -> None:
        """Make the world as ``plan`` says: create and change what it names, delete what it does not.

        Returns once the changes are under way; what comes of them is seen by a later ``observe``.
        An empty ``Plan()`` removes all that exists for ``key``.
        Raises ``OperatorError`` if a change could not be started.
        """
