"""A variant on its way through a build: what it is made of, how good it is, what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.variants.evaluation import Outcome
from serving.variants.gate import Quality
from serving.variants.profiling import Cost
from serving.variants.recipe import Variant


@dataclasses.dataclass
class Form:
    """What is known so far; None is not known yet, or never will be because it was refused."""

    variant: Variant
    model: Path
    digest: str = ""
    bytes: int = 0
    made: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What the report says of the steps that made it."""
    signature: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    operators: Sequence[str] = ()
    """Kinds of nodes of its graph."""
    searched_by: str = ""
    """The variant whose search found it, or for another engine than which it is."""
    refused: str = ""
    outcome: Outcome | None = None
    quality: Quality | None = None
    cost: Cost | None = None
    memory_bytes: int | None = None
    load_s: float | None = None

    @property
    def name(self) -> str:
        """Its variant's."""
        return self.variant.name


def agree(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a form takes and gives what the source does; of a size that either leaves open, nothing is known."""

    def given(signature: Mapping[str, Any]) -> list[tuple[str, str, int]]:
        return [(name, kind, len(shape)) for name, kind, shape in signature["outputs"]]

    pairs = zip(before["outputs"], after["outputs"], strict=False)
    sizes = (pair for (*_, old), (*_, new) in pairs for pair in zip(old, new, strict=False))
    return (
        before["inputs"] == after["inputs"]
        and given(before) == given(after)
        and all(old == new or -1 in (old, new) for old, new in sizes)
    )


def fixed_batch(forms: Sequence[Form]) -> int | None:
    """The one batch size that all of them take; None where any will do."""
    shapes = (shape for form in forms for _, _, shape in form.signature.get("inputs", ()))
    return min((shape[0] for shape in shapes if shape and shape[0] != -1), default=None)
