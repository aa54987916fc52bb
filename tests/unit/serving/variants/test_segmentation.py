from __future__ import annotations

import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.variants import metrics

Y = np.array([[[0, 0], [1, 1]], [[0, 1], [255, 255]]])


def test_classes_that_occur_count_alike_over_the_points_of_all_pictures() -> None:
    """Everything is called 0: of class 0 are 3 of 6 points, of class 1 none of 3; class 2 does not occur."""
    scores = np.zeros((2, 3, 2, 2), np.float32)
    scores[:, 0] = 1
    metric = metrics.named("mean-iou")
    rows = metric.outcomes(scores, Y)
    assert rows.tolist() == [[2, 0, 0, 4, 2, 0], [1, 0, 0, 2, 1, 0]]
    assert metric.value(rows) == pytest.approx((3 / 6 + 0) / 2)


def test_one_channel_is_the_probability_of_class_1() -> None:
    metric = metrics.named("mean-iou")
    probability = np.where(Y == 1, 0.7, 0.3)[:, None].astype(np.float32)
    assert metric.value(metric.outcomes(probability, Y)) == 1.0


def test_maps_of_another_size_and_classes_beyond_the_output_are_refused() -> None:
    metric = metrics.named("mean-iou")
    with pytest.raises(InvalidInput, match=r"y is int64 \[2, 2, 2\]; mean-iou needs \[n, classes, height, width\]"):
        metric.outcomes(np.zeros((2, 3, 4, 4), np.float32), Y)
    with pytest.raises(InvalidInput, match="y goes from 0 to 5, and the output has 3 classes"):
        metric.outcomes(np.zeros((1, 3, 1, 2), np.float32), np.array([[[0, 5]]]))
