"""What a segmentation is worth: mean intersection over union of the classes that occur.

*Output*: scores [n, classes, height, width], the highest is the point's class; with one channel a probability, above
one half class 1. *Labels*: ``y`` [n, height, width] are classes, and 255 where nothing is marked. The points of all
pictures are counted together (Everingham et al., "The Pascal Visual Object Classes", IJCV 88 (2010) 303).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput
from serving.tensors import Array

_UNMARKED = 255


@dataclasses.dataclass(frozen=True)
class MeanIou:
    """A row is the common points of each class, then the points that are of it in either."""

    is_share = False
    has_points = True
    is_loss = False
    labels = ("y",)

    def outcomes(self, output: Array, labels: Array) -> npt.NDArray[np.float64]:
        if output.ndim != 4 or labels.dtype.kind not in "iu" or labels.shape != (len(output), *output.shape[2:]):
            raise InvalidInput(
                f"the output has shape {list(output.shape)} and y is {labels.dtype} {list(labels.shape)}; mean-iou "
                "needs [n, classes, height, width], and whole numbers [n, height, width]"
            )
        classes = max(2, output.shape[1])
        found = output.argmax(axis=1) if output.shape[1] > 1 else (output[:, 0] > 0.5).astype(np.int64)
        counts = labels != _UNMARKED
        if (labels[counts] >= classes).any() or (labels < 0).any():
            raise InvalidInput(
                f"y goes from {labels.min()} to {labels[counts].max()}, and the output has {classes} classes"
            )
        rows = np.zeros((len(output), 2 * classes))
        for kind in range(classes):
            one, other = (found == kind) & counts, (labels == kind) & counts
            rows[:, kind] = (one & other).sum(axis=(1, 2))
            rows[:, classes + kind] = (one | other).sum(axis=(1, 2))
        return rows

    def value(self, rows: npt.NDArray[np.float64]) -> float:
        common, either = rows.sum(axis=0).reshape(2, -1)
        return float((common[either > 0] / either[either > 0]).mean()) if either.any() else float("nan")
