"""Stick figures with the 17 joints of COCO, drawn by chance: pictures, joints and boxes for training and evaluation.

A figure faces the viewer. Its left arm and leg are of one hue and its right ones of another, or nobody could tell them
apart. Colours are few and areas flat, so that hundreds of pictures pack into a small file.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SIDE = 96
PEOPLE = 2
"""At most, in one picture."""
JOINTS = 17
SIGMAS = np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1, *[2] * 8]).astype(np.float32)
"""How far people who mark joints differ, as shares of a figure's size: nose, eyes, ears, shoulders, elbows, wrists,
hips, knees, ankles, left before right (COCO)."""
_FINE = 3
"""Drawn so many times as large, then reduced: edges are smooth."""
_LEVELS = 16
"""Levels of each colour channel."""
_LEFT = ((5, 7), (7, 9), (11, 13), (13, 15))
_RIGHT = ((6, 8), (8, 10), (12, 14), (14, 16))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """``pixels`` uint8 [n, 3, SIDE, SIDE]; ``joints`` [n, PEOPLE, 17, 3]: x, y in pixels and 1 where it is in the
    picture; ``boxes`` [n, PEOPLE, 4]: left, top, right, bottom. Zeros where there is no second figure.
    """

    pixels: npt.NDArray[np.uint8]
    joints: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]


def draw(pictures: int, seed: int) -> Pictures:
    """So many pictures, the same for the same seed."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((pictures, 3, SIDE, SIDE), np.uint8)
    joints = np.zeros((pictures, PEOPLE, JOINTS, 3), np.float32)
    boxes = np.zeros((pictures, PEOPLE, 4), np.float32)
    for number in range(pictures):
        image = _background(rng)
        people = 2 if rng.random() < 0.3 else 1
        for person in range(people):
            middle = SIDE * (
                rng.uniform(0.3, 0.7) if people == 1 else (0.27 + 0.46 * person + rng.uniform(-0.05, 0.05))
            )
            height = rng.uniform(48, 80) if people == 1 else rng.uniform(44, 62)
            where = _placed(rng, _figure(rng), middle, height)
            _paint(rng, image, where, height)
            joints[number, person, :, :2] = where
            joints[number, person, :, 2] = ((where >= 0) & (where < SIDE)).all(axis=1)
            margin = height / 20
            boxes[number, person] = np.clip([*where.min(0) - margin, *where.max(0) + margin], 0, SIDE)
        small = np.asarray(image.reduce(_FINE)).transpose(2, 0, 1)
        step = 255 / (_LEVELS - 1)
        pixels[number] = np.rint(np.rint(small / step) * step)
    return Pictures(pixels, joints, boxes)


def tensor(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pixels as the network's input, 0 to 1."""
    return pixels.astype(np.float32) / np.float32(255)


def _figure(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Joints [17, 2] of a figure about 1 high, its middle at 0, y downwards."""
    joint = np.zeros((JOINTS, 2))

    def along(start: int, length: float, angle: float) -> npt.NDArray[np.float64]:
        """From a joint, straight down at angle 0 and to the picture's right at a quarter turn."""
        return joint[start] + length * np.array([math.sin(angle), math.cos(angle)])

    wide = rng.uniform(0.09, 0.13)
    joint[0] = rng.normal(0, 0.012), -0.38
    for first, side in ((0, 1), (1, -1)):
        eye, ear, shoulder, elbow, wrist, hip, knee, ankle = (first + number for number in range(1, JOINTS, 2))
        joint[eye] = joint[0] + (side * 0.03, -0.03)
        joint[ear] = joint[0] + (side * 0.06, -0.01)
        joint[shoulder] = side * wide, -0.23
        joint[hip] = side * wide * 0.65, 0.06
        arm, leg = side * rng.uniform(0.1, 2.3), side * rng.uniform(0.0, 0.6)
        joint[elbow] = along(shoulder, 0.17, arm)
        joint[wrist] = along(elbow, 0.16, arm + side * rng.uniform(0.0, 1.4))
        joint[knee] = along(hip, 0.22, leg)
        joint[ankle] = along(knee, 0.22, leg - side * rng.uniform(0.0, 0.5))
    return joint


def _placed(
    rng: np.random.Generator, figure: npt.NDArray[np.float64], middle: float, height: float
) -> npt.NDArray[np.float64]:
    """In pixels, leaning a little."""
    lean = rng.normal(0, 0.15)
    turn = np.array([[math.cos(lean), math.sin(lean)], [-math.sin(lean), math.cos(lean)]])
    placed: npt.NDArray[np.float64] = figure @ turn * height + (middle, SIDE * rng.uniform(0.44, 0.54))
    return placed


def _background(rng: np.random.Generator) -> Image.Image:
    size = SIDE * _FINE
    image = Image.new("RGB", (size, size), _colour(rng, 40, 215))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        left, top = rng.uniform(-0.2, 1.0, 2) * size
        width, height = rng.uniform(0.1, 0.5, 2) * size
        pen.rectangle((left, top, left + width, top + height), fill=_colour(rng, 40, 215))
    return image


def _paint(rng: np.random.Generator, image: Image.Image, joints: npt.NDArray[np.float64], height: float) -> None:
    pen = ImageDraw.Draw(image)
    # A pixel's middle is at half a pixel, as the network has it.
    at = [(float(x) * _FINE, float(y) * _FINE) for x, y in joints]
    unit = height * _FINE

    def disc(joint: int, radius: float, colour: tuple[int, ...]) -> None:
        (x, y), radius = at[joint], radius * unit
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    body, skin = _colour(rng, 90, 165), _colour(rng, 180, 255)
    warm = (int(rng.integers(200, 256)), int(rng.integers(0, 90)), int(rng.integers(0, 60)))
    cold = (int(rng.integers(0, 60)), int(rng.integers(0, 110)), int(rng.integers(200, 256)))
    pen.polygon([at[5], at[6], at[12], at[11]], fill=body)
    for bones, colour in ((_LEFT, warm), (_RIGHT, cold)):
        for one, other in bones:
            pen.line((at[one], at[other]), fill=colour, width=max(1, round(0.055 * unit)))
        for joint in bones[0] + bones[2] + (bones[1][1], bones[3][1]):
            disc(joint, 0.033, colour)
        for joint in (bones[1][1], bones[3][1]):
            disc(joint, 0.022, (255, 255, 255))
    disc(0, 0.075, skin)
    for joint, colour in ((3, warm), (4, cold)):
        disc(joint, 0.02, colour)
    for joint in (1, 2):
        disc(joint, 0.014, (0, 0, 0))


def _colour(rng: np.random.Generator, least: int, most: int) -> tuple[int, ...]:
    return tuple(int(one) for one in rng.integers(least, most, 3))
