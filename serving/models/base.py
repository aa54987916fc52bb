"""What a server knows about models: the seam between the protocols and where models come from.

Two implementations: ``repository.Repository`` has models of its own, ``catalog.Catalog`` only knows
their names. ``describe`` turns either into the answers of the management calls, which are the same
for REST and gRPC.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Sequence
from typing import Protocol

from serving.errors import UnknownModel
from serving.scheduling import ModelQueue

_FEW = 5
"""So many models are named to whoever asks for another."""


class State(enum.StrEnum):
    """States of the repository index, in Triton's words."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the repository index."""

    name: str
    version: str
    state: State
    reason: str = ""


class Models(Protocol):
    """The models behind a server."""

    computes: bool
    """Whether inferences are computed here, and so are known here; a catalog leads elsewhere."""

    def find(self, name: str, version: str) -> ModelQueue:
        """The queue of a version, of the default one for ``""``; UnknownModel or NotReady otherwise."""

    def index(self) -> Sequence[Entry]:
        """Every version known, ordered by name."""

    def is_ready(self) -> bool:
        """Whether the server as a whole should get requests."""

    def hung(self) -> str:
        """Which engine keeps the server from answering anything, and only its end would help; else empty."""

    async def start(self) -> None:
        """Makes everything available; ArtifactRefused when nothing can be served."""

    async def load(self, name: str) -> None:
        """Loads or reloads a model; what served before goes on until the new one can."""

    async def unload(self, name: str) -> None:
        """Stops serving a model after the requests it has."""

    def tick(self, now: float) -> None:
        """Keeps the time limits of running inferences; called ten times a second."""


def not_served(name: str, known: Collection[str]) -> UnknownModel:
    """What whoever asks for a model that is not among those ``known`` is told."""
    few = f": {', '.join(sorted(known))}" if 0 < len(known) <= _FEW else ""
    return UnknownModel(name, f"is not served here; GET /v2/models lists what is served{few}")
