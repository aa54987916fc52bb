"""Which build a Model needs: its variants made, measured and judged in one go, by the serving side's builder."""

from __future__ import annotations

import json
from typing import Any

from operators.api.model import Model, Variant
from operators.api.plan import Build
from operators.planning import names
from serving import contract

_SAID = ("source", "variants", "evaluation", "objective", "contract")
_DEFAULT_BATCH = 32


def document(model: Model, source_digest: str | None = None) -> dict[str, Any]:
    """What the builder is asked; ``source_digest`` pins a source that the spec does not."""
    said = model.spec.to_dict()
    asked = {key: said[key] for key in _SAID if key in said}
    if source_digest is not None:
        asked["source"] = {**asked["source"], "digest": source_digest}
    batching = model.spec.batching
    largest = batching.max_size if batching and batching.max_size else _DEFAULT_BATCH
    return {**asked, "name": model.metadata.name, "maxBatch": largest}


def said(model: Model) -> tuple[str, ...]:
    """Fields that only a build acts on, as paths."""
    spec = model.spec
    fields = {"spec.evaluation": spec.evaluation, "spec.objective": spec.objective}
    made = (
        f"spec.variants[{variant.name}].{'search' if variant.search else 'passes'}"
        for variant in spec.variants
        if variant.passes or variant.search
    )
    return (*(path for path, value in fields.items() if value is not None), *made)


def is_built(model: Model, variant: Variant) -> bool:
    """Whether a variant has to be made or proved before it may serve; the source itself need not, if it is ONNX."""
    is_foreign = (variant.source or model.spec.source).uri.endswith(contract.IMPORTED + contract.NEVER_READ)
    is_changed = bool(variant.passes) or variant.search is not None
    return is_changed or is_foreign or (variant.source is not None and model.spec.evaluation is not None)


def wanted(model: Model, source_digest: str | None) -> Build | None:
    """The build of ``model``; None where nothing has to be built, or the source is not known yet."""
    if source_digest is None or not any(is_built(model, variant) for variant in model.spec.variants):
        return None
    asked = document(model, source_digest)
    return Build(names.digest(asked), json.dumps(asked, sort_keys=True))
