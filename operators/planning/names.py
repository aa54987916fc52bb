"""Names made from content: the same recipe always gets the same name, so nothing is ever made twice."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Eight hexadecimal digits that stand for a JSON value.

    A collision among a Model's revisions is one in 4 billion per pair.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def workload(model: str, revision: str, variant: str) -> str:
    """Name of a workload, at most 62 characters so that it fits a label: a long variant is hashed."""
    suffix = variant if len(variant) <= 12 else variant[:3] + digest(variant)
    return f"{model}-{revision}-{suffix}"
