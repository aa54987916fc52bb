"""What a detector found, drawn onto its picture."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from PIL import Image, ImageDraw

from operators.cli.infer import BadInput, Found
from serving.translation import InvalidInput, pictures

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46c2c2", "#f032e6", "#9a6324")
_VISIBLE = 0.5
_BONES = {
    17: (
        *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
        *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
    )
}
"""Joints that belong together, by how many there are: those of COCO."""


def draw(file: pathlib.Path, there: Sequence[Found], target: pathlib.Path) -> None:
    """The picture in ``file`` with boxes, labels and joints, written to ``target``.

    Raises:
        BadInput: one of the files is no picture, or cannot be written.
    """
    try:
        picture = pictures.read(file)
    except InvalidInput as error:
        raise BadInput(f"--input {file}: {error}; only pictures can be drawn on") from error
    _mark(picture, there)
    try:
        picture.save(target)
    except (OSError, ValueError) as error:
        raise BadInput(f"--draw {target}: {error}; give a .png or .jpg file in a folder that is there") from error


def _mark(picture: Image.Image, there: Sequence[Found]) -> None:
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 320))
    for number, one in enumerate(there):
        colour = _COLOURS[number % len(_COLOURS)]
        left, top, right, bottom = one.box
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
        pen.text((left + 2 * width, top + width), f"{one.label} {one.score:.0%}", fill=colour)
        at = [(x, y) if visible >= _VISIBLE else None for x, y, visible in one.joints]
        for first, second in _BONES.get(len(at), ()):
            if (begin := at[first]) is not None and (end := at[second]) is not None:
                pen.line((begin, end), fill=colour, width=width)
        for joint in at:
            if joint is not None:
                pen.circle(joint, 1.5 * width, fill=colour)
