"""What one replica of a model needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from operators.api.base import Quantity, Strict


class Accelerator(Strict):
    class_: Annotated[str, Field(alias="class", max_length=63)]
    """Class from the hardware catalogue, such as `nvidia-l4`."""
    memory: Quantity | None = None
    """Memory needed on the accelerator."""
    sharing: Literal["none", "mig", "timeslice", "mps", "dra"] = "none"
    """How one accelerator may be shared with others."""


class ComputeList(Strict):
    cpu: Quantity | None = None
    """Processor time, in cores: `1`, `500m`."""
    memory: Quantity | None = None
    """Memory: `1Gi`."""


class Resources(Strict):
    requests: ComputeList = ComputeList()
    """What a replica is sure to get."""
    limits: ComputeList = ComputeList()
    """What a replica can never exceed."""
    accelerator: Accelerator | None = None
    """The accelerator a replica needs."""
