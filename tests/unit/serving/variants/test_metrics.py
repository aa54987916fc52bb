from __future__ import annotations

import numpy as np
import pytest

from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Array
from serving.variants import metrics

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32)
LABELS = np.array([1, 0, 2, 0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accuracy", 0.75),
        ("top-2", 1.0),
        ("log-loss", float(np.log([0.7, 0.5, 0.3, 0.4]).mean())),
        ("f1", float(np.mean([1.0, 2 / 3, 0.0]))),
    ],
)
def test_a_metric_of_classes_is_worth_what_was_worked_out_by_hand(name: str, value: float) -> None:
    metric = metrics.named(name)
    assert metric.value(metric.outcomes(SCORES, LABELS)) == pytest.approx(value)


def test_equal_scores_give_the_first_class_as_argmax_does() -> None:
    metric = metrics.named("accuracy")
    assert metric.outcomes(np.ones((2, 3), np.float32), np.array([0, 1])).ravel().tolist() == [1.0, 0.0]


def test_scores_that_are_no_numbers_are_wrong() -> None:
    metric = metrics.named("accuracy")
    assert metric.outcomes(np.full((1, 3), np.nan, np.float32), np.array([0])).ravel().tolist() == [0.0]


def test_auroc_counts_pairs_in_the_right_order() -> None:
    metric = metrics.named("auroc")
    assert metric.value(metric.outcomes(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))) == 0.75


def test_numbers_are_compared_by_their_deviation() -> None:
    found, wanted = np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 4.0, 3.0])
    rmse, mae = metrics.named("rmse"), metrics.named("mae")
    assert rmse.value(rmse.outcomes(found, wanted)) == pytest.approx(-np.sqrt(4 / 3))
    assert mae.value(mae.outcomes(found, wanted)) == pytest.approx(-2 / 3)


def test_a_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(ArtifactRefused, match="the labels go from 0 to 3, and the output has 3 classes"):
        metrics.named("accuracy").outcomes(SCORES, np.array([0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("labels", "instead"),
    [
        (
            np.eye(4, 3, dtype=np.float32),
            r"are float32 \[n, 3\] and the output \[n, 3\]; .*: write y\.argmax\(axis=1\)",
        ),
        (np.array(["a", "b", "a", "c"]), r"write for each name its position among the classes"),
    ],
    ids=["one-hot", "names"],
)
def test_labels_of_another_kind_are_refused_with_what_to_write_instead(labels: Array, instead: str) -> None:
    with pytest.raises(ArtifactRefused, match=instead):
        metrics.named("accuracy").outcomes(SCORES, labels)


def test_numbers_that_do_not_fit_are_refused_with_their_shapes() -> None:
    with pytest.raises(InvalidInput, match=r"shape \[n, 3\] and the labels \[n\]; .* or name a metric of classes"):
        metrics.named("rmse").outcomes(SCORES, np.zeros(4))


def test_a_metric_nobody_knows_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInput, match=r"evaluation\.metric 'accurate' is not known; one of accuracy, exact-match"):
        metrics.named("accurate")
