"""An inference request and its answer, as the protocols decode and encode them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from serving.tensors import Tensor


class Wanted(NamedTuple):
    """One output that a client asked for; ``binary`` None: as the request says for all."""

    name: str
    binary: bool | None = None


class Request(NamedTuple):
    """What a client sent, decoded but not yet held against a model's signature."""

    id: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Wanted] = ()
    """Empty: every output."""
    binary: bool = False
    """Whether outputs that do not say otherwise are answered as binary."""


class Response(NamedTuple):
    """What an engine computed for a request."""

    model: str
    version: str
    id: str
    outputs: Sequence[Tensor]
