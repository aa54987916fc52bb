"""How a Model's engine takes requests: what becomes ``PENSTOCK_SETTINGS`` of its serving processes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from operators.api.base import Duration, Strict


class Batching(Strict):
    max_size: Annotated[int | None, Field(ge=1, le=4096)] = None
    """Most rows computed together; 1 switches batching off. Left out: 32 where a trial at load shows that it changes no
    answer and is worth it.
    """
    max_delay: Duration | None = None
    """Longest wait for a fuller batch while the engine is idle. Left out: none."""


class Limits(Strict):
    timeout: Duration | None = None
    """Longest time from a request's last byte to its answer, and for the trial at load. Left out: 30s."""
    execution: Duration | None = None
    """Longest time of one call of the engine, which is then interrupted. Left out: as `timeout`."""
    max_pending: Annotated[int | None, Field(ge=1, le=100000)] = None
    """Requests that one replica may have, waiting or in the engine. Left out: 128, and for a quick model as many more
    as wait no longer than 0.25 s.
    """
