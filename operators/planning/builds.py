"""Which build a Model needs: its variants made, measured and judged in one go, by the serving side's builder."""

from __future__ import annotations

import json
from typing import Any

from operators.api.model import Model, Variant
from operators.api.plan import Build
from operators.planning import names, runtimes
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
    asked |= {"engine": model.spec.runtime} if model.spec.runtime in runtimes.LOWERED else {}
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
    runtime = ("spec.runtime",) if spec.runtime == runtimes.AUTO else ()
    return (*(path for path, value in fields.items() if value is not None), *made, *runtime)


def is_built(model: Model, variant: Variant) -> bool:
    """Whether a variant has to be made or proved before it may serve; the source itself need not, if it is ONNX."""
    uri = (variant.source or model.spec.source).uri
    is_foreign = uri.endswith(contract.IMPORTED + contract.NEVER_READ)
    is_changed = bool(variant.passes) or variant.search is not None
    engine = model.spec.runtime
    is_lowered = engine in contract.ENGINE_SUFFIXES and not uri.endswith(contract.ENGINE_SUFFIXES[engine])
    is_given = variant.source is not None and model.spec.evaluation is not None
    return is_changed or is_foreign or is_lowered or is_given


def wanted(model: Model, source_digest: str | None) -> Build | None:
    """The build of ``model``; None where nothing has to be built, or the source is not known yet."""
    spec = model.spec
    is_compared = spec.runtime == runtimes.AUTO and spec.evaluation is not None
    if source_digest is None or not (is_compared or any(is_built(model, variant) for variant in spec.variants)):
        return None
    asked = document(model, source_digest)
    return Build(names.digest(asked), json.dumps(asked, sort_keys=True))
