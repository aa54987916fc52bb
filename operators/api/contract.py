"""How bytes become a model's tensors, and its tensors an answer; it travels with the artifact."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from operators.api.base import Rule, Strict


class ImageInput(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(!has(self.mean) || (self.mean.size() != 2 && (self.mode != 'grey' || self.mean.size() < 2)))"
            " && (!has(self.std) || (self.std.size() != 2 && (self.mode != 'grey' || self.std.size() < 2)))",
            "mean and std have one number, or one for each channel",
            lambda self: {len(self.mean), len(self.std)} <= {0, 1, 1 if self.mode == "grey" else 3},
        ),
    )
    size: Annotated[tuple[Annotated[int, Field(ge=1, le=16384)], ...], Field(min_length=2, max_length=2)]
    """Height and width in pixels that the model takes; an image of another size is scaled."""
    mode: Literal["grey", "rgb", "bgr"] = "rgb"
    """Channels: one (grey), or three in this order."""
    fit: Literal["stretch", "letterbox"] = "stretch"
    """How an image is scaled: stretch fills the size, letterbox keeps its shape and puts it in the middle."""
    pad: Annotated[int, Field(ge=0, le=255)] = 114
    """Pixel value around an image that fit letterbox leaves room beside."""
    scale: float = 1.0
    """Every pixel value, 0 to 255, is multiplied by this."""
    mean: Annotated[tuple[float, ...], Field(max_length=3)] = ()
    """Then this is subtracted: one number, or one for each channel."""
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=3)] = ()
    """And what is left is divided by this: one number, or one for each channel."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Order of the input's dimensions: batch, channels, height, width, or batch, height, width, channels."""


class InputContract(Strict):
    image: ImageInput | None = None
    """The input is one image, as float32 with four dimensions."""


class Detections(Strict):
    joints: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many joints each finding has: 17 of poses after COCO, 0 where there are boxes alone."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.25
    """What is less sure is not shown. An evaluation counts whatever is above 0.01."""
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Of boxes of one class that overlap by more than this share of what both cover, the surest stays."""
    most: Annotated[int, Field(ge=1, le=1000)] = 100
    """Findings shown of one image, the surest."""


class OutputContract(Strict):
    labels: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=10000)] = ()
    """Names of the classes, in the order of the scores in the first output."""
    detections: Detections | None = None
    """The first output is what YOLOv8 writes, [batch, 4 + classes + 3 * joints, places]: the middle x, y, width and
    height of a box in pixels of the input, a score for each class, and x, y and visibility of each joint.
    """


class Contract(Strict):
    input: InputContract | None = None
    """How bytes become the input tensor."""
    output: OutputContract | None = None
    """How the output tensor becomes an answer."""
