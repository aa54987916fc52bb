"""For which engines variants are made: as a Model's runtime asks, one of them, or each that is installed; pure."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from serving import contract
from serving.errors import InvalidInput
from serving.variants.recipe import Asked, Lower, Pass, Variant

PACKAGES = {"openvino": "openvino", "litert": "ai-edge-litert"}
"""What computes for an engine other than ONNX Runtime."""


def variants(asked: Asked, installed: Collection[str]) -> list[tuple[Variant, str]]:
    """What is to be made, each with the name of the variant that it is a form of; none where it is that variant.

    What says its engine itself, by a pass or by its file's name, stays as it is; so does a search, which tries engines.
    """
    found: list[tuple[Variant, str]] = []
    for variant in asked.variants:
        source = (variant.source or asked.source).uri
        is_said = any(one.lower for one in variant.passes) or source.endswith(tuple(contract.ENGINE_SUFFIXES.values()))
        if asked.engine == "auto" and not is_said and variant.search is None:
            forms = (msgspec.structs.replace(_for(engine, variant), name=f"{variant.name}-{engine}")
                     for engine in PACKAGES if engine in installed)  # fmt: skip
            found += [(variant, ""), *((form, variant.name) for form in forms)]
        elif asked.engine in PACKAGES and variant.search is not None:
            raise InvalidInput(
                f"variant {variant.name}: a search tries every engine, and the runtime is {asked.engine}; "
                "use the runtime auto, or name passes"
            )
        elif asked.engine in PACKAGES and not is_said:
            found.append((_for(asked.engine, variant), ""))
        else:
            found.append((variant, ""))
    return found


def _for(engine: str, variant: Variant) -> Variant:
    """The variant for another engine. LiteRT reads no integers of ONNX and makes its own, of the same samples."""
    passes, told = variant.passes, Lower(target=engine)  # type: ignore[arg-type]
    last = passes[-1].quantize if passes else None
    if engine == "litert" and last is not None and last.mode == "static":
        passes, told = passes[:-1], Lower(target="litert", precision="int8", calibration=last.calibration)
    return msgspec.structs.replace(variant, passes=(*passes, Pass(lower=told)))
