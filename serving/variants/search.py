"""``search``: which variant to try next, from what was tried so far; pure.

An exhaustive search makes every structure (as it is, channels pruned by several ratios) with every finish (none, each
kind of quantization). Most of that is known without making it:

- Dynamic quantization has no fast kernel for convolutions, and a CPU none for 16-bit floats: neither is tried where it
  cannot gain.
- The finishes are tried on the model as it is, cheap to make, and the first that keeps the quality is taken for all.
  Where it leaves more than an answer's last layer in floats, by rule, the one that measures which layers need it is
  tried as well: it may leave fewer.
- Ratios of pruning are climbed until one does not keep the quality: a smaller net keeps less. Each step trains, which
  is what a search costs.
- The finish is then put on the last two rungs that kept it, for it costs quality as well.
- Other engines are given the net that kept the quality in the smallest file (of the last two rungs: a ratio that leaves
  odd numbers of channels may make no smaller one), and no other: which engine is the fastest changes with
  the kind of net and of numbers, and hardly with the ratio. OpenVINO takes it with its finish, and in bf16 without;
  LiteRT makes integers of its own. None is tried on graphs without products, which only ONNX Runtime has kernels for.

What was tried is measured together at the end, like variants that were named, and the gate has the last word.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from serving.variants.recipe import Cast, Location, Lower, Pass, Prune, Quantize, Search, Training, Variant

RATIOS = (0.5, 0.75, 0.875)
_MIXED = "int8-mixed"
_ANSWER = 2
"""Nodes that a classifier's answer is made of: the last layer, and what makes shares of its numbers."""
_HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the source before anything is tried."""

    operators: frozenset[str]
    computes_fp16: bool
    """Whether the hardware computes 16-bit floats."""
    computes_bf16: bool = False
    """Whether it computes those of eight bits' precision."""
    engines: tuple[str, ...] = ()
    """What ``lower`` can be told, beside ONNX Runtime."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """A variant that was made, or could not be, and whether it keeps the quality that is asked."""

    variant: Variant
    keeps: bool
    bytes: int = 0
    excluded: int = 0
    """Nodes that its quantization left in floats."""


def following(name: str, search: Search, facts: Facts, tried: Sequence[Tried]) -> Variant | None:
    """The variant to try next; None when nothing is left that could be better than what was tried."""
    outcome = {one.variant.name: one.keeps for one in tried}

    def named(*parts_or_none: Variant | None) -> Variant:
        parts = [one for one in parts_or_none if one is not None]
        passes = tuple(step for one in parts for step in one.passes)
        return Variant(name="-".join([name, *(one.name for one in parts)]), passes=passes)

    excluded = {one.variant.name: one.excluded for one in tried}
    keeping: list[Variant] = []
    for finish in finishes(search.calibration, facts):
        alone = named(None, finish)
        if keeping and (finish.name != _MIXED or excluded[named(None, keeping[0]).name] <= _ANSWER):
            continue
        if alone.name not in outcome:
            return alone
        if outcome[alone.name]:
            keeping.append(finish)
    best = keeping[0] if keeping else None
    kept: list[Variant] = []
    for structure in structures(search.training, facts):
        alone = named(structure, None)
        if alone.name not in outcome:
            return alone
        if not outcome[alone.name]:
            break
        kept.append(structure)
    if best is not None:
        for structure in reversed(kept[-2:]):
            both = named(structure, best)
            if both.name not in outcome:
                return both
    bytes_of = {one.variant.name: one.bytes for one in tried}
    finished = [one for one in reversed(kept[-2:]) if outcome[named(one, best).name]]
    top = min(finished, key=lambda one: bytes_of[named(one, best).name], default=None)
    numbers: Sequence[Variant | None] = [best] if top or not keeping else keeping
    for one in numbers:
        for parts in lowered(top, one, search.calibration, facts):
            if (form := named(*parts)).name not in outcome:
                return form
    return None


def finishes(calibration: Location | None, facts: Facts) -> list[Variant]:
    """What can be put on any structure, the likeliest first."""
    found = []
    if facts.operators & _HEAVY:
        if not facts.operators & {"Conv", "ConvTranspose"}:
            found.append(Variant(name="int8-dynamic", passes=(Pass(quantize=Quantize(mode="dynamic")),)))
        if calibration is not None:
            for name, method in (("int8", "minmax"), ("int8-percentile", "percentile")):
                told = Quantize(calibration=calibration, method=method)  # type: ignore[arg-type]
                found.append(Variant(name=name, passes=(Pass(quantize=told),)))
            mixed = Quantize(calibration=calibration, exclude="sensitive")
            found.append(Variant(name=_MIXED, passes=(Pass(quantize=mixed),)))
    if facts.computes_fp16:
        found.append(Variant(name="fp16", passes=(Pass(cast=Cast()),)))
    return found


def lowered(
    structure: Variant | None, finish: Variant | None, calibration: Location | None, facts: Facts
) -> list[tuple[Variant | None, ...]]:
    """The best net for each other engine, in the numbers that suit it."""
    found: list[tuple[Variant | None, ...]] = []
    if not facts.operators & _HEAVY:
        return found
    if "openvino" in facts.engines:
        found.append((structure, finish, _for("openvino", Lower(target="openvino"))))
        if facts.computes_bf16:
            found.append((structure, _for("openvino-bf16", Lower(target="openvino", precision="bf16"))))
    if "litert" in facts.engines:
        told = Lower(target="litert", precision="int8", calibration=calibration)
        found.append((structure, _for("litert-int8", told)))
    return found


def _for(name: str, told: Lower) -> Variant:
    return Variant(name=name, passes=(Pass(lower=told),))


def structures(training: Training | None, facts: Facts) -> list[Variant]:
    """Ever smaller nets; none where there are no channels, or nothing to learn from."""
    if training is None or not facts.operators & _HEAVY:
        return []
    return [
        Variant(name=f"pruned{int(100 * ratio)}", passes=(Pass(prune=Prune(ratio=ratio, training=training)),))
        for ratio in RATIOS
    ]
