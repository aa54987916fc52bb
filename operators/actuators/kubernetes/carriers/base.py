"""What every kind of object that carries replicas has to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from operators.api.plan import Workload, WorkloadObserved
from operators.runtime.resource import Resource

Object = dict[str, Any]

Make = Callable[[Workload, Object, Object], Object]
"""The object for a workload, from the workload, the reference to its owner, and the spec of its pods.

It and its pods carry ``makers.labels(workload)``, and it has the workload's name.
"""
Observe = Callable[[Object, Sequence[Object], Sequence[Object]], WorkloadObserved]
"""The workload as the planner sees it, from the object, the Deployments that others made for it, and its pods.

What others made is known by the workload's label.
"""


@dataclasses.dataclass(frozen=True)
class Carrier:
    """One kind of object that carries the replicas of a workload."""

    resource: Resource
    make: Make
    observe: Observe
    selects: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Labels by which the workload's Service selects its pods, beside the workload's own."""
    reached: Callable[[Workload], Sequence[Object]] = lambda workload: ()
    """Rules of a NetworkPolicy for what its pods need of each other, and of their controller."""
    adjust: Callable[[Object, Object], Sequence[tuple[Resource, Object]]] = lambda live, wanted: ()
    """What to apply to objects that others made of it, from how it is and how it is wanted: what they do not follow."""
    install: str = ""
    """What to install where the cluster does not know the kind; empty: every cluster knows it."""

    @property
    def missing(self) -> str:
        """What to say where the cluster does not know the kind."""
        return f"the cluster does not serve {self.resource} {self.resource.version}; {self.install}"
