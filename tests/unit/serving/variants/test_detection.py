from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from serving.errors import InvalidInput
from serving.translation import detections
from serving.variants import detection, metrics

Floats = npt.NDArray[np.float32]


def boxes_output(*pictures: Sequence[tuple[float, ...]], classes: int = 1, places: int = 6) -> Floats:
    """[n, 4 + classes, places] of left, top, right, bottom and a score for each class."""
    output = np.zeros((len(pictures), 4 + classes, places), np.float32)
    for number, found in enumerate(pictures):
        for place, (left, top, right, bottom, *scores) in enumerate(found):
            middle = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            output[number, :, place] = (*middle, *scores)
    return output


def labels(*pictures: Sequence[tuple[float, ...]], columns: int = 4) -> Floats:
    """[n, objects, columns], padded with zeros."""
    most = max(len(one) for one in pictures)
    padded = np.zeros((len(pictures), most, columns), np.float32)
    for number, there in enumerate(pictures):
        for place, corners in enumerate(there):
            padded[number, place] = corners
    return padded


def ap_iou(output: Floats, boxes: Floats) -> float:
    metric = metrics.named("ap-iou")
    return metric.value(metric.outcomes(output, boxes))


def test_boxes_found_as_they_are_marked_are_worth_one() -> None:
    there = [(0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 40.0, 30.0)]
    output = boxes_output([(*there[0], 0.9), (*there[1], 0.4)])
    assert ap_iou(output, labels(there)) == pytest.approx(1.0)


def test_a_box_that_overlaps_by_seven_tenths_is_right_at_five_of_ten_thresholds() -> None:
    """Of 10 x 10 points 70 are covered and none beside them: 0.70 passes 0.50, 0.55, 0.60, 0.65 and 0.70."""
    output = boxes_output([(0.0, 0.0, 10.0, 7.0, 0.9)])
    assert ap_iou(output, labels([(0.0, 0.0, 10.0, 10.0)])) == pytest.approx(0.5)


def test_one_of_two_objects_found_is_worth_the_recalls_up_to_a_half() -> None:
    """51 of the 101 recalls, 0 to 0.50, are reached, at precision 1."""
    output = boxes_output([(0.0, 0.0, 10.0, 10.0, 0.9)])
    assert ap_iou(output, labels([(0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)])) == pytest.approx(51 / 101)


def test_a_false_finding_costs_only_when_it_is_surer_than_a_right_one() -> None:
    """After it, both recalls are reached at precisions 1/2 and 2/3, and the better one counts for both."""
    there = labels([(0.0, 0.0, 10.0, 10.0)], [(0.0, 0.0, 10.0, 10.0)])
    first = [(0.0, 0.0, 10.0, 10.0, 0.8)]
    below = boxes_output(first, [(0.0, 0.0, 10.0, 10.0, 0.7), (50.0, 50.0, 60.0, 60.0, 0.1)])
    above = boxes_output(first, [(0.0, 0.0, 10.0, 10.0, 0.7), (50.0, 50.0, 60.0, 60.0, 0.9)])
    assert ap_iou(below, there) == pytest.approx(1.0)
    assert ap_iou(above, there) == pytest.approx(2 / 3)


def test_two_findings_of_one_object_are_one_right_and_one_wrong() -> None:
    """They overlap by 0.6, so both stay; the second has no object left, and the missing one is never found."""
    output = boxes_output([(0.0, 0.0, 10.0, 10.0, 0.9), (0.0, 0.0, 10.0, 6.0, 0.8)])
    rows = metrics.named("ap-iou").outcomes(output, labels([(0.0, 0.0, 10.0, 10.0)]))
    assert rows[0, :7].tolist() == pytest.approx([1.0, 0.9, 1023.0, 0.0, 0.8, 0.0, 0.0])


def test_classes_are_compared_one_by_one_and_count_alike() -> None:
    """Class 0 is found; class 1 is taken for class 2, which does not occur: (1 + 0) / 2."""
    there = [(0.0, 0.0, 10.0, 10.0, 0.0), (20.0, 20.0, 30.0, 30.0, 1.0)]
    output = boxes_output([(*there[0][:4], 0.9, 0, 0), (*there[1][:4], 0, 0, 0.9)], classes=3)
    assert ap_iou(output, labels(there, columns=5)) == pytest.approx(0.5)


def poses(*pictures: list[Floats]) -> tuple[Floats, Floats]:
    """Keypoints [n, people, 17, 3] and the boxes around 100 x 100 points that they are sized by."""
    most = max(len(one) for one in pictures)
    keypoints = np.zeros((len(pictures), most, 17, 3), np.float32)
    boxes = np.zeros((len(pictures), most, 4), np.float32)
    for number, people in enumerate(pictures):
        for place, joints in enumerate(people):
            keypoints[number, place] = joints
            boxes[number, place] = (*joints[0, :2] - 50, *joints[0, :2] + 50)
    return boxes, keypoints


def person(x: float) -> Floats:
    joints = np.ones((17, 3), np.float32)
    joints[:, :2] = x
    return joints


def pose_output(*pictures: list[tuple[Floats, float]], places: int = 4) -> Floats:
    output = np.zeros((len(pictures), 56, places), np.float32)
    for number, people in enumerate(pictures):
        for place, (joints, score) in enumerate(people):
            output[number, :5, place] = (*joints[0, :2], 100, 100, score)
            output[number, 5:, place] = joints.ravel()
    return output


def test_a_joint_that_is_off_is_worth_what_the_formula_says() -> None:
    """Nose alone, off by 5 points in an area of 5,300: exp(-25 / (2 * 5300 * 0.052^2)) = 0.41802."""
    marked = person(100)
    marked[1:, 2] = 0
    moved = person(100)
    moved[0, 0] += 5
    boxes, keypoints = poses([marked])
    alike = detections.oks(moved[None].astype(np.float64), keypoints[0].astype(np.float64), boxes[0].astype(np.float64))
    assert alike.tolist() == [[pytest.approx(0.41802, abs=1e-5)]]


def test_people_in_one_picture_are_matched_each_to_their_own() -> None:
    boxes, keypoints = poses([person(100), person(400)], [person(100)])
    output = pose_output([(person(400), 0.9), (person(100), 0.8)], [(person(100), 0.7)])
    metric = metrics.named("ap-oks")
    rows = metric.outcomes(output, boxes, keypoints)
    assert rows[:, 0].tolist() == [2, 1]
    assert metric.value(rows) == pytest.approx(1.0)
    assert metric.value(metric.outcomes(output[::-1], boxes, keypoints)) < 0.7


def test_a_surer_finding_takes_the_object_and_the_next_one_takes_from_the_rest() -> None:
    alike = np.array([[0.8, 0.6], [0.9, 0.1]])
    assert detection.matched(alike)[:, [0, 2, 8]].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_pictures_drawn_twice_count_twice() -> None:
    boxes, keypoints = poses([person(100)], [person(100)])
    rows = metrics.named("ap-oks").outcomes(pose_output([(person(100), 0.9)], [(person(300), 0.95)]), boxes, keypoints)
    value = metrics.named("ap-oks").value
    assert value(rows[[0, 0]]) == pytest.approx(1.0)
    assert value(rows[[1, 1]]) == 0.0
    assert value(rows[[0, 0, 1]]) == pytest.approx(67 * (2 / 3) / 101)


@pytest.mark.parametrize(
    ("name", "shapes", "words"),
    [
        ("ap-oks", [(2, 10), (2, 1, 4), (2, 1, 17, 3)], "the output has shape [2, 10]; ap-oks needs [n, 56, places]"),
        ("ap-oks", [(2, 56, 8), (2, 4), (2, 1, 17, 3)], "boxes has shape [2, 4]; ap-oks needs [n, objects, 4 or 5]"),
        ("ap-oks", [(2, 56, 8), (2, 1, 4), (2, 1, 16, 3)], "keypoints has shape [2, 1, 16, 3]; beside these boxes"),
        ("ap-iou", [(2, 4, 8), (2, 1, 4)], "ap-iou needs [n, 4 + classes, places]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_words(name: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        metrics.named(name).outcomes(*(np.zeros(shape, np.float32) for shape in shapes))
    assert words in str(refused.value)


def test_boxes_of_poses_are_read_by_the_contract_and_overlap_as_it_says() -> None:
    """Of two boxes that cover each other by 0.6 the surer stays where half is too much."""
    boxes, _ = poses([person(100)])
    output = pose_output([(person(100), 0.9), (person(100), 0.8)])
    output[0, 3, 1] = 60
    contract = {"output": {"detections": {"joints": 17, "overlap": 0.5}}}
    loose, strict = (
        metrics.named("ap-iou", {"output": {"detections": {"joints": 17}}}),
        metrics.named("ap-iou", contract),
    )
    assert np.isfinite(loose.outcomes(output, boxes)[0]).sum() == 1 + 2 * 3
    assert np.isfinite(strict.outcomes(output, boxes)[0]).sum() == 1 + 3
    assert strict.value(strict.outcomes(output, boxes)) == pytest.approx(1.0)


def test_a_class_beyond_the_output_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the classes of boxes go from 3 to 3, and the output has 1, from 0 on"):
        ap_iou(boxes_output([]), labels([(0.0, 0.0, 10.0, 10.0, 3.0)], columns=5))


def test_the_answer_of_a_network_of_640_points_is_read_as_one_of_96_points_is() -> None:
    """8400 places are the cells of 8, 16 and 32 pixels: 80 x 80, 40 x 40 and 20 x 20."""
    boxes, keypoints = poses([person(100), person(400)])
    output = np.concatenate(
        [pose_output([(person(100), 0.9), (person(400), 0.8)]), np.full((1, 56, 8396), 0.001, np.float32)], axis=2
    )
    metric = metrics.named("ap-oks")
    assert output.shape == (1, 56, 8400)
    assert metric.value(metric.outcomes(output, boxes, keypoints)) == pytest.approx(1.0)
