"""What a detector finds, beside what is there: average precision of boxes and of poses, after COCO.

*Output*: one tensor [n, columns, places], read as ``translation.detections`` does everywhere, with the overlap and the
joints of the Model's contract; for poses (``ap-oks``) it has 56 columns. Places with a score below ``_LEAST_SCORE`` are
nobody, whatever the contract has people shown: what is unsure costs precision at high recalls only, which is counted.

*Labels*, arrays of the dataset, padded with zeros up to the most objects in one picture, in pixels of the input:
``boxes`` [n, objects, 4] are left, top, right, bottom, and a fifth column is the class, 0 where there is none; a box
without area is padding. ``keypoints`` [n, people, 17, 3] are x, y and a visibility above 0 where the joint is marked;
somebody without such a joint is padding. Pictures of crowds that are not marked one by one belong in no dataset here.

*Value.* Within a picture the finding with the highest score takes the object that it resembles most, if by at least the
threshold, then the next one takes from the rest; so for each of the ten thresholds 0.50, 0.55 … 0.95. Then all findings
of a class, best score first, give precision and recall after each; precision counts as the best at this recall or any
higher one, and is averaged over the 101 recalls 0, 0.01 … 1, over the thresholds and over the classes that occur. Boxes
resemble each other by intersection over union, poses by OKS, the mean over marked joints of

    exp(-d² / (2 s² k²)),   k = 2 sigma,   s² = 0.53 · area of the box,

with d the distance in pixels. (COCO has the area of the outline; 0.53 of the box is what it is on average.)

Whom a finding matches depends on its own picture alone, and is settled there once; so a set of pictures drawn anew is
worth what one sort and one sum of its rows say. Source: Lin et al., "Microsoft COCO", ECCV 2014, and its evaluation
code, ``cocoeval.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput
from serving.tensors import Array
from serving.translation import detections
from serving.translation.detections import JOINTS, findings, iou, oks

Floats = npt.NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_LEAST_SCORE = 0.01
_USUAL = detections.Wanted()
_COLUMNS = 3
"""Of one finding in a row: score, which thresholds it matched at as bits, class."""


@dataclasses.dataclass(frozen=True)
class AveragePrecision:
    """Mean average precision, 0 to 1. ``most``: findings of a picture that count. ``read``: how answers are read.

    A row is the number of objects of each class, then ``most`` findings, NaN where there are fewer.
    """

    similarity: Literal["oks", "iou"]
    most: int
    read: detections.Wanted = _USUAL
    is_share = False
    has_points = True
    is_loss = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Poses need their joints too."""
        return ("boxes", "keypoints") if self.similarity == "oks" else ("boxes",)

    def by(self, contract: Mapping[str, Any]) -> AveragePrecision:
        """The same, of answers that are read by a Model's contract."""
        return dataclasses.replace(self, read=detections.Wanted.of(contract) or self.read)

    def outcomes(self, output: Array, boxes: Array, keypoints: Array | None = None) -> Floats:
        pose = self.similarity == "oks"
        self._check(output, boxes, keypoints)
        wanted = dataclasses.replace(
            self.read,
            joints=JOINTS if pose else self.read.joints,
            least_score=_LEAST_SCORE,
            most=self.most,
        )
        classes = wanted.classes(output.shape)
        rows = np.full((len(output), classes + self.most * _COLUMNS), np.nan)
        for row, answer, corners, marked in zip(
            rows, output, boxes, keypoints if keypoints is not None else boxes, strict=True
        ):
            found = findings(answer, wanted)
            there = marked[..., 2].any(axis=1) if pose else (corners[:, 2:4] > corners[:, :2]).all(axis=1)
            corners, marked = corners[there].astype(np.float64), marked[there].astype(np.float64)
            kinds = corners[:, 4].astype(np.int64) if corners.shape[1] == 5 else np.zeros(len(corners), np.int64)
            if kinds.size and not 0 <= kinds.min() <= kinds.max() < classes:
                raise InvalidInput(
                    f"the classes of boxes go from {kinds.min()} to {kinds.max()}, and the output has {classes}, "
                    "from 0 on"
                )
            alike = oks(found.joints, marked, corners[:, :4]) if pose else iou(found.boxes, corners[:, :4])
            hits = matched(np.where(found.classes[:, None] == kinds, alike, -1.0))
            row[:classes] = np.bincount(kinds, minlength=classes)
            told = np.stack([found.scores, hits @ (1 << np.arange(len(THRESHOLDS))), found.classes], axis=1)
            row[classes : classes + told.size] = told.ravel()
        return rows

    def value(self, rows: Floats) -> float:
        classes = rows.shape[1] - self.most * _COLUMNS
        objects = rows[:, :classes].sum(axis=0)
        found = rows[:, classes:].reshape(-1, _COLUMNS)
        found = found[~np.isnan(found[:, 0])]
        found = found[np.argsort(-found[:, 0], kind="stable")]
        hits = (found[:, 1].astype(np.int64)[:, None] >> np.arange(len(THRESHOLDS))) & 1
        worth = [
            _precision(hits[found[:, 2] == kind] if classes > 1 else hits, int(objects[kind]))
            for kind in np.flatnonzero(objects)
        ]
        return float(np.mean(worth)) if worth else float("nan")

    def _check(self, output: Array, boxes: Array, keypoints: Array | None) -> None:
        pose = self.similarity == "oks"
        if output.ndim != 3 or output.shape[1] < 5 or (pose and output.shape[1] != 5 + 3 * JOINTS):
            wanted = "56, places]: a box, a score and 17 joints" if pose else "4 + classes, places]"
            raise InvalidInput(f"the output has shape {list(output.shape)}; ap-{self.similarity} needs [n, {wanted}")
        if boxes.ndim != 3 or boxes.shape[2] not in (4, 5):
            raise InvalidInput(f"boxes has shape {list(boxes.shape)}; ap-{self.similarity} needs [n, objects, 4 or 5]")
        if keypoints is not None and keypoints.shape != (*boxes.shape[:2], JOINTS, 3):
            beside = [*boxes.shape[:2], JOINTS, 3]
            raise InvalidInput(f"keypoints has shape {list(keypoints.shape)}; beside these boxes ap-oks needs {beside}")


def matched(alike: Floats) -> npt.NDArray[np.int64]:
    """Which findings, best first, match an object of their own at each threshold: 0 or 1, [findings, thresholds]."""
    hits = np.zeros((len(alike), len(THRESHOLDS)), np.int64)
    for place, threshold in enumerate(THRESHOLDS):
        free = alike.copy()
        for position in range(len(free) if alike.size else 0):
            best = int(free[position].argmax())
            # What is half alike by hand is half alike: 0.5 may be 0.49999999999999994 here.
            if free[position, best] >= threshold - 1e-10:
                hits[position, place] = 1
                free[:, best] = -1.0
    return hits


def _precision(hits: npt.NDArray[np.int64], objects: int) -> float:
    """Average precision over thresholds and recalls of findings [n, thresholds] in the order of their scores."""
    if not len(hits):
        return 0.0
    right = hits.cumsum(axis=0)
    precision = right / np.arange(1, len(hits) + 1)[:, None]
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    needed = _RECALLS * objects - 1e-9
    total = 0.0
    for place in range(hits.shape[1]):
        first = np.searchsorted(right[:, place], needed)
        total += best[first[first < len(hits)], place].sum()
    return float(total / (len(_RECALLS) * hits.shape[1]))
