"""How bytes become a model's tensors, and its tensors an answer; it travels with the artifact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from operators.api.base import Strict


class ImageInput(Strict):
    size: Annotated[tuple[Annotated[int, Field(ge=1, le=16384)], ...], Field(min_length=2, max_length=2)]
    """Height and width in pixels that the model takes; an image of another size is scaled."""
    mode: Literal["grey", "rgb"] = "rgb"
    """Channels: one (grey) or three (rgb)."""
    scale: float = 1.0
    """Every pixel value, 0 to 255, is multiplied by this."""


class InputContract(Strict):
    image: ImageInput | None = None
    """The input is one image, as float32 [batch, channels, height, width]."""


class OutputContract(Strict):
    labels: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=10000)] = ()
    """Names of the classes, in the order of the scores in the last dimension of the first output."""


class Contract(Strict):
    input: InputContract | None = None
    """How bytes become the input tensor."""
    output: OutputContract | None = None
    """How the output tensor becomes an answer."""
