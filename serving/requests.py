"""An inference request and its answer, as the protocols decode and encode them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from serving.tensors import Tensor

_NO_PARAMETERS: Mapping[str, Any] = {}


class Wanted(NamedTuple):
    """One output that a client asked for; ``binary`` None: as the request says for all."""

    name: str
    binary: bool | None = None
    classes: int = 0
    """How many classes to answer with instead of the tensor (``protocols.classification``); 0: the tensor."""


class Request(NamedTuple):
    """What a client sent, decoded but not yet held against a model's signature."""

    id: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Wanted] = ()
    """Empty: every output."""
    binary: bool = False
    """Whether outputs that do not say otherwise are answered as binary."""
    parameters: Mapping[str, Any] = _NO_PARAMETERS
    """Everything the client sent as the request's parameters, by name."""
    priority: int = 0
    """1 is the highest, larger numbers come later; 0: the model's default."""
    timeout_s: float | None = None
    """How long the client lets its request wait and run, as one of its parameters says; None: no limit of its own."""


class Response(NamedTuple):
    """What an engine computed for a request."""

    model: str
    version: str
    id: str
    outputs: Sequence[Tensor]
