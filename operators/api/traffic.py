"""What a Model's arms get of the requests that clients send."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from operators.api.base import Strict


class Traffic(Strict):
    max_concurrent: Annotated[int | None, Field(ge=1, le=100000)] = None
    """Requests that the replicas of one revision together may have, waiting or being answered, through one replica of
    the router: who sends more is told so at once (503), while a new revision's share is no more than it can carry and
    an engine that refuses nothing is not flooded. Left out: `limits.maxPending` of each replica alone.
    """
