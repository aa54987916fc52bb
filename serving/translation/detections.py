"""What a detector's answer says is there: boxes, their classes and, of poses, joints.

The answer is one tensor [n, columns, places], as YOLOv8 writes it. The columns are the middle x, y, width and height of
a box in pixels of the input, a score for each class, and x, y and visibility of each joint: 84 for boxes of 80 classes,
56 for poses of 17 joints. Places whose best score is below ``least_score`` are nobody; of boxes of one class that
overlap by more than ``overlap`` the one with the highest score stays ("non-maximum suppression"), and of those the best
``most`` in a picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput

if TYPE_CHECKING:  # a server that compares findings draws no pictures
    from serving.translation.pictures import Placement

Floats = npt.NDArray[np.float64]

_CANDIDATES = 300
"""So many places of a picture, the best, are looked at."""
JOINTS = 17
"""Of poses after COCO."""
SIGMAS = np.repeat([0.026, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089], [1, *[2] * 8])
"""Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left before right."""
_OUTLINE = 0.53
"""Share of its box that somebody's outline covers, on average."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How an answer is to be read."""

    joints: int = 0
    least_score: float = 0.25
    overlap: float = 0.7
    """Intersection over union."""
    most: int = 100

    @classmethod
    def of(cls, contract: Mapping[str, Any]) -> Wanted | None:
        """What ``spec.contract`` says; None where the output is not said to be one of detections."""
        said = (contract.get("output") or {}).get("detections")
        if said is None:
            return None
        names = {"joints": "joints", "leastScore": "least_score", "overlap": "overlap", "most": "most"}
        return cls(**{names[name]: value for name, value in said.items() if name in names})

    def classes(self, shape: tuple[int, ...]) -> int:
        """How many classes an output [n, columns, places] tells apart; InvalidInput where it is no such output."""
        others = 4 + 3 * self.joints
        if len(shape) != 3 or shape[1] <= others:
            joints = f" + {3 * self.joints} for {self.joints} joints" if self.joints else ""
            raise InvalidInput(
                f"the output has shape {list(shape)}, and detections are read from [n, 4 + classes{joints}, places]"
            )
        return shape[1] - others


@dataclasses.dataclass(frozen=True)
class Findings:
    """In one picture, the best first. ``boxes`` [n, 4] are corners, ``joints`` [n, joints, 3]."""

    scores: Floats
    classes: npt.NDArray[np.int64]
    boxes: Floats
    joints: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def back(self, placement: Placement) -> Findings:
        """In points of the picture that lies so in the input; boxes end where it does."""
        corners = placement.back(self.boxes.reshape(-1, 2, 2)).clip(0, placement.size)
        joints = self.joints.copy()
        joints[..., :2] = placement.back(joints[..., :2])
        return dataclasses.replace(self, boxes=corners.reshape(-1, 4), joints=joints)


def findings(answer: npt.NDArray[Any], wanted: Wanted) -> Findings:
    """What one picture's answer [columns, places] says is there; places that hold NaN are nobody."""
    classes = wanted.classes((1, *answer.shape))
    scores, kinds = answer[4 : 4 + classes].max(axis=0), answer[4 : 4 + classes].argmax(axis=0)
    good = np.flatnonzero((scores >= wanted.least_score) & np.isfinite(answer).all(axis=0))
    good = good[np.argsort(-scores[good], kind="stable")][:_CANDIDATES]
    places = answer[:, good].T.astype(np.float64)
    middle, half = places[:, :2], np.abs(places[:, 2:4]) / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    kept = _best(boxes, kinds[good], wanted)
    told = places[kept, 4 + classes :].reshape(len(kept), wanted.joints, 3)
    return Findings(scores[good][kept].astype(np.float64), kinds[good][kept], boxes[kept], told)


def _best(boxes: Floats, kinds: npt.NDArray[np.int64], wanted: Wanted) -> list[int]:
    """Positions of the boxes, best first, that no better one of their class covers."""
    covered = (iou(boxes, boxes) > wanted.overlap) & (kinds[:, None] == kinds)
    left = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    for position in range(len(boxes)):
        if left[position] and len(kept) < wanted.most:
            kept.append(position)
            left &= ~covered[position]
    return kept


def iou(ones: Floats, others: Floats) -> Floats:
    """Intersection over union of boxes [n, 4] and [m, 4] given by corners: [n, m]."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (ones, others)]
    alike: Floats = common / np.maximum(areas[0][:, None] + areas[1] - common, 1e-12)
    return alike


def oks(found: Floats, marked: Floats, boxes: Floats) -> Floats:
    """Object keypoint similarity of joints [n, 17, 3] to those marked [m, 17, 3], of people in boxes [m, 4]: [n, m]."""
    apart = ((found[:, None, :, :2] - marked[None, :, :, :2]) ** 2).sum(axis=3)
    size = _OUTLINE * np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-12)
    close = np.exp(-apart / (2 * size[:, None] * (2 * SIGMAS) ** 2))
    counts = marked[:, :, 2] > 0
    alike: Floats = (close * counts).sum(axis=2) / np.maximum(counts.sum(axis=1), 1)
    return alike
