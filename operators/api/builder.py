"""How builds run in a cluster: what their pods get, and how far one says it is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from operators.api.base import Seen, Strict

_TENTHS = 10


class PodResources(Strict):
    requests: dict[str, str | int] = {}
    """What the scheduler reserves."""
    limits: dict[str, str | int] = {}
    """What cannot be exceeded. No limit of cpu by default: it would throttle an idle machine, too."""


class Builder(Strict):
    """What whoever installed Penstock says of the pods that make variants."""

    resources: PodResources = PodResources(requests={"cpu": "1", "memory": "2Gi"}, limits={"memory": "8Gi"})
    """What a build gets. A step of it may take three quarters of the limit of memory."""
    deadline_seconds: Annotated[int, Field(ge=60)] = 4 * 3600
    """How long a build may take, all its tries together."""
    node_selector: dict[str, str] = {}
    """Labels a node must have. Variants are measured there, so let it be like the nodes that serve."""
    tolerations: tuple[dict[str, Any], ...] = ()
    """Taints that are accepted."""
    affinity: dict[str, Any] = {}
    """Affinity."""
    pod_annotations: dict[str, str] = {}
    """Annotations of the pods."""


class Progress(Seen):
    """What a builder tells of itself while it works."""

    variant: Annotated[str, Field(max_length=256)]
    stage: Annotated[str, Field(max_length=256)]
    share: Annotated[float, Field(ge=0, le=1)]
    left_s: Annotated[float | None, Field(alias="left_s", ge=0, le=1e7)]

    def __str__(self) -> str:
        step = f"{self.variant}: {self.stage}" if self.variant else self.stage
        # In tenths and minutes, for each other text is another write of the status.
        left = f", about {max(1, round(self.left_s / 60))} min left" if self.left_s is not None else ""
        return f"{step} ({round(self.share * _TENTHS) / _TENTHS:.0%}{left})"
