"""A picture becomes a model's input, by ``contract.input.image``; and points of the input points of the picture again.

In this order: grey or coloured; brought to the size, by ``fit: stretch`` each way by itself, by ``fit: letterbox`` both
ways alike, in the middle of what ``pad`` fills; every value v of 0 to 255 becomes (v * scale - mean) / std, with a mean
and a std for each channel or one for all; channels before rows (``layout: NCHW``) or after columns (``NHWC``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.errors import InvalidInput

_MOST_POINTS = 64 * 10**6
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the model takes."""

    height: int
    width: int
    mode: Literal["grey", "rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "letterbox"] = "stretch"
    pad: int = 114
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    @classmethod
    def of(cls, contract: Mapping[str, Any]) -> Wanted | None:
        """What ``spec.contract`` says; None where it says nothing of pictures."""
        said = (contract.get("input") or {}).get("image")
        if said is None:
            return None
        own = {field.name for field in dataclasses.fields(cls)} & said.keys()
        height, width = said["size"]
        return cls(height, width, **{name: said[name] for name in own if said[name] is not None})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample."""
        channels = 1 if self.mode == "grey" else 3
        return (channels, self.height, self.width) if self.layout == "NCHW" else (self.height, self.width, channels)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a picture of ``size`` (width, height) lies in the input: its point x is at ``left + across * x``."""

    size: tuple[int, int]
    left: int
    top: int
    across: float
    down: float

    def back(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Points [..., 2] of the input as points of the picture, x before y."""
        result: npt.NDArray[np.float64] = (points - (self.left, self.top)) / (self.across, self.down)
        return result


def read(path: Path, mode: str = "RGB") -> Image.Image:
    """The picture in a file, in Pillow's ``mode``.

    InvalidInput where it is none, or claims more than 64 million points: a small file may claim any number.
    """
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below is our own bound
            image = stack.enter_context(Image.open(path, formats=_FORMATS))
            if image.width * image.height > _MOST_POINTS:
                raise InvalidInput(
                    f"claims {image.width} x {image.height} points; 64 million are taken at most, scale it down"
                )
            return image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"cannot be read as an image: {error}") from error


def opened(path: Path, wanted: Wanted) -> tuple[npt.NDArray[np.float32], Placement]:
    """One sample of the input, and where the picture lies in it; InvalidInput where the file is none."""
    return tensor(read(path, "L" if wanted.mode == "grey" else "RGB"), wanted)


def tensor(picture: Image.Image, wanted: Wanted) -> tuple[npt.NDArray[np.float32], Placement]:
    """The same of a picture."""
    image = picture.convert("L" if wanted.mode == "grey" else "RGB")
    width, height = wanted.width, wanted.height
    if wanted.fit == "letterbox":
        ratio = min(wanted.width / image.width, wanted.height / image.height)
        width, height = (max(1, round(side * ratio)) for side in image.size)
    placement = Placement(
        image.size,
        (wanted.width - width) // 2,
        (wanted.height - height) // 2,
        width / image.width,
        height / image.height,
    )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) != (wanted.width, wanted.height):
        whole = Image.new(image.mode, (wanted.width, wanted.height), (wanted.pad,) * len(image.getbands()))
        whole.paste(image, (placement.left, placement.top))
        image = whole
    pixels: npt.NDArray[np.float32] = np.asarray(image, np.float32) * np.float32(wanted.scale)
    pixels = pixels.reshape(wanted.height, wanted.width, -1)
    if wanted.mode == "bgr":
        pixels = pixels[..., ::-1]
    pixels -= np.asarray(wanted.mean or (0.0,), np.float32)
    pixels /= np.asarray(wanted.std or (1.0,), np.float32)
    return pixels.transpose(2, 0, 1) if wanted.layout == "NCHW" else pixels, placement
