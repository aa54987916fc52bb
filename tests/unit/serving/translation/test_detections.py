from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from serving.errors import InvalidInput
from serving.translation import detections
from serving.translation.detections import Wanted
from serving.translation.pictures import Placement


def answer(*found: Sequence[float], places: int = 6) -> npt.NDArray[np.float32]:
    """[columns, places] of the middle x, y, width, height, and whatever else follows."""
    made = np.zeros((len(found[0]), places), np.float32)
    for place, one in enumerate(found):
        made[:, place] = one
    return made


def test_of_boxes_that_cover_each_other_the_surest_stays() -> None:
    found = detections.findings(answer((5, 4.5, 10, 9, 0.8), (5, 5, 10, 10, 0.9), (35, 35, 10, 10, 0.5)), Wanted())
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.boxes.tolist() == [[0, 0, 10, 10], [30, 30, 40, 40]]


def test_boxes_of_different_classes_do_not_cover_each_other() -> None:
    found = detections.findings(answer((5, 5, 10, 10, 0.9, 0.1), (5, 5, 10, 10, 0.2, 0.8)), Wanted())
    assert found.classes.tolist() == [0, 1]


def test_what_is_less_sure_than_asked_and_more_than_are_asked_is_left_out() -> None:
    three = answer((5, 5, 10, 10, 0.9), (25, 5, 10, 10, 0.5), (45, 5, 10, 10, 0.2))
    assert len(detections.findings(three, Wanted())) == 2
    assert len(detections.findings(three, Wanted(least_score=0.1))) == 3
    assert len(detections.findings(three, Wanted(most=1))) == 1


def test_a_place_that_is_no_number_is_nobody() -> None:
    found = detections.findings(answer((5, 5, np.nan, 10, 0.9), (5, 5, 10, 10, 0.8)), Wanted())
    assert found.scores.tolist() == pytest.approx([0.8])


def test_a_picture_with_nobody_has_no_findings() -> None:
    assert len(detections.findings(np.zeros((56, 8400), np.float32), Wanted(joints=17))) == 0


def test_joints_and_boxes_are_told_in_points_of_the_picture_and_boxes_end_with_it() -> None:
    """Half as large, and 80 points from the top."""
    found = detections.findings(answer((0, 100, 20, 40, 0.9, 10, 90, 0.7)), Wanted(joints=1))
    back = found.back(Placement((1280, 960), left=0, top=80, across=0.5, down=0.5))
    assert back.boxes.tolist() == [[0, 0, 20, 80]]
    assert back.joints.round(4).tolist() == [[[20, 20, 0.7]]]


def test_what_the_contract_says_is_what_is_wanted() -> None:
    said = {"joints": 17, "leastScore": 0.5, "overlap": 0.6, "most": 3}
    assert Wanted.of({"output": {"detections": said}}) == Wanted(17, 0.5, 0.6, 3)
    assert Wanted.of({"output": {"detections": {}}}) == Wanted()
    assert Wanted.of({"output": {"labels": ["a"]}}) is None


@pytest.mark.parametrize(("joints", "columns", "classes"), [(0, 84, 80), (17, 56, 1), (17, 57, 2)])
def test_classes_are_the_columns_that_are_neither_box_nor_joint(joints: int, columns: int, classes: int) -> None:
    assert Wanted(joints=joints).classes((1, columns, 8400)) == classes


@pytest.mark.parametrize("shape", [(1, 10), (1, 55, 8400), (8400,)])
def test_another_output_is_refused_with_what_is_expected(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput) as refused:
        Wanted(joints=17).classes(shape)
    assert str(refused.value) == (
        f"the output has shape {list(shape)}, and detections are read from [n, 4 + classes + 51 for 17 joints, places]"
    )
