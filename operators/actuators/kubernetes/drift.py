"""Does a live object already have every field that is wanted? Foreign fields do not count.

Writing only where something differs is what makes a steady state silent. The API server rewrites some values
(quantities: ``1024Mi`` becomes ``1Gi``) and adds defaults, so the comparison is of the wanted fields alone, with
quantities by value; a hash of what was applied last, kept in an annotation, finds fields that are wanted no more.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

from kubernetes.utils.quantity import parse_quantity

APPLIED = "penstock.dev/applied"


def stamped(wanted: dict[str, Any]) -> dict[str, Any]:
    """``wanted`` with the hash of itself as annotation, unless it has a stamp already."""
    result = copy.deepcopy(wanted)
    result["metadata"].setdefault("annotations", {}).setdefault(APPLIED, digest(wanted))
    return result


def digest(wanted: dict[str, Any]) -> str:
    """A hash that is the same for what is the same."""
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differs(wanted: Any, live: Any, *, quantity: bool = False) -> bool:
    """True if applying ``wanted`` would change ``live``."""
    match wanted:
        case dict():
            if not isinstance(live, dict):
                return bool(wanted)
            return any(
                differs(value, live.get(name), quantity=quantity or name in ("requests", "limits"))
                for name, value in wanted.items()
            )
        case list():
            if not isinstance(live, list):
                return bool(wanted)
            return any(differs(value, _counterpart(value, live, i)) for i, value in enumerate(wanted))
        case str() if quantity and isinstance(live, str):
            return bool(parse_quantity(wanted) != parse_quantity(live))  # type: ignore[no-untyped-call]
        case _:
            return bool(wanted != live)


def _counterpart(value: Any, live: list[Any], index: int) -> Any:
    """List items that have a name are matched by it, since others may add items of their own."""
    if isinstance(value, dict) and "name" in value:
        return next((item for item in live if isinstance(item, dict) and item.get("name") == value["name"]), None)
    return live[index] if index < len(live) else None
