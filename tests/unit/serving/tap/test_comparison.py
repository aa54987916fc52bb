from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.tap.comparison import TOLERANCES, How, difference, told
from serving.tensors import DTYPES, Tensor
from serving.translation.detections import Wanted

LABELS = How(top=1)
POSES = How.of({"output": {"detections": {"joints": 17}}})
BOXES = How.of({"output": {"detections": {}}})
VALUES = How()


def scores(*rows: Sequence[float], datatype: str = "FP32", name: str = "scores") -> Tensor:
    return Tensor(name, datatype, np.array(rows, DTYPES[datatype]))


def found(*findings: Sequence[float], joints: int = 0) -> Tensor:
    """Answer [1, 5 + 3 * joints, 20]: a middle, a size and a score at each place, and joints spread over the box."""
    answer = np.zeros((1, 5 + 3 * joints, 20), np.float32)
    for place, (x, y, width, height, score) in enumerate(findings):
        answer[0, :5, place] = x, y, width, height, score
        along = np.linspace(-0.5, 0.5, joints)
        spread = np.stack([x + along * width, y + along * height, np.ones(joints)], axis=1)
        answer[0, 5:, place] = spread.ravel()
    return Tensor("output0", "FP32", answer)


floats = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)
)
anything = hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(0, 5)), elements=st.floats(width=32))


@given(values=anything, how=st.sampled_from([LABELS, VALUES, How(tolerance=0.0)]))
def test_an_answer_agrees_with_itself(values: npt.NDArray[Any], how: How) -> None:
    one = [Tensor("scores", "FP32", values)]
    assert difference(one, one, how) == ""


@given(ours=anything, theirs=anything, how=st.sampled_from([LABELS, VALUES]))
def test_whether_two_answers_agree_does_not_depend_on_who_is_asked_first(
    ours: npt.NDArray[Any], theirs: npt.NDArray[Any], how: How
) -> None:
    one, other = [Tensor("scores", "FP32", ours)], [Tensor("scores", "FP32", theirs)]
    assert (difference(one, other, how) == "") == (difference(other, one, how) == "")


@given(values=floats, noise=st.floats(0, 1), datatype=st.sampled_from(["FP32", "FP64"]), factor=st.floats(1e-3, 1e3))
def test_noise_below_the_tolerance_of_the_datatype_agrees_at_every_scale(
    values: npt.NDArray[Any], noise: float, datatype: str, factor: float
) -> None:
    ours = (values.astype(np.float64) * factor).astype(DTYPES[datatype])
    scale = np.abs(ours).max()
    theirs = (ours + noise * 0.9 * TOLERANCES[datatype] * scale).astype(DTYPES[datatype])
    assert difference([Tensor("y", datatype, ours)], [Tensor("y", datatype, theirs)], VALUES) == ""


@given(values=floats, place=st.integers(0, 100))
def test_one_value_that_is_off_by_a_tenth_of_the_greatest_does_not_agree(values: npt.NDArray[Any], place: int) -> None:
    scale = np.abs(values).max()
    assume(scale > 1e-3)
    theirs = values.copy()
    theirs.flat[place % values.size] += scale / 10
    assert difference([Tensor("y", "FP32", values)], [Tensor("y", "FP32", theirs)], VALUES)


@given(values=floats, power=st.floats(0.2, 5))
def test_scores_that_keep_their_order_agree_whatever_they_are(values: npt.NDArray[Any], power: float) -> None:
    ranks = values.argsort(axis=-1).argsort(axis=-1).astype(np.float32)
    other = (ranks + 1) ** power
    assume(all(len(set(row)) == len(row) for row in values.tolist()))
    assert difference([Tensor("s", "FP32", values)], [Tensor("s", "FP32", other.astype(np.float32))], LABELS) == ""


def test_another_class_on_top_is_told_with_its_row() -> None:
    ours, theirs = scores([0, 3, 1], [2, 1, 0]), scores([0, 3, 1], [1, 2, 0])
    assert difference([ours], [theirs], LABELS) == "row 1 of output 'scores' has class 1 on top, not 0 (1 of 2 rows)"


def test_of_scores_that_are_equal_either_may_be_on_top() -> None:
    assert difference([scores([1, 1, 0])], [scores([0, 1, 0])], LABELS) == ""


@pytest.mark.parametrize(
    ("top", "theirs", "said"),
    [
        (2, [8, 9, 7, 0], ""),
        (2, [9, 1, 8, 0], "class 2 on top, not 1"),
        (3, [9, 1, 8, 0], ""),
        (3, [9, 0, -1, 1], "class 3 on top, not 2"),
        (2, [9, 5, 5, 0], ""),
        (9, [0, 1, 2, 3], ""),
    ],
)
def test_of_ranks_the_best_must_be_the_same_ones_in_any_order(top: int, theirs: list[float], said: str) -> None:
    found = difference([scores([9, 8, 7, 0])], [scores(theirs)], How(top=top))
    assert found == (said and f"row 0 of output 'scores' has {said} (1 of 1 rows)")


@given(values=floats, top=st.integers(1, 6))
def test_ranks_of_scores_that_keep_their_order_agree(values: npt.NDArray[Any], top: int) -> None:
    other = values.astype(np.float64) ** 3
    assert (
        difference([Tensor("s", "FP64", values.astype(np.float64))], [Tensor("s", "FP64", other)], How(top=top)) == ""
    )


def test_an_answer_of_no_numbers_does_not_agree() -> None:
    nan = float("nan")
    assert difference([scores([1, 0])], [scores([nan, nan])], LABELS) == (
        "row 0 of output 'scores' is not a number (1 of 1 rows)"
    )
    assert difference([scores([1, 0])], [scores([nan, 0])], VALUES) == (
        "1 values of output 'scores' are not numbers in one of both answers"
    )


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ([scores([1, 2], name="logits")], "its outputs are 'logits', not 'scores'"),
        ([scores([1, 2, 3])], "output 'scores' is FP32 [1, 3], not FP32 [1, 2]"),
        ([scores([1, 2], datatype="FP64")], "output 'scores' is FP64 [1, 2], not FP32 [1, 2]"),
        ([], "its outputs are none, not 'scores'"),
    ],
)
def test_other_names_shapes_and_datatypes_do_not_agree(theirs: list[Tensor], said: str) -> None:
    for how in (LABELS, VALUES):
        assert difference([scores([1, 2])], theirs, how) == said


@pytest.mark.parametrize(
    ("datatype", "theirs", "agrees"),
    [
        ("FP32", [1.0, 100.05], True),
        ("FP32", [1.0, 100.5], False),
        ("FP16", [1.5, 100.5], True),
        ("FP16", [1.0, 102.0], False),
        ("INT8", [3, 100], True),
        ("INT8", [4, 100], False),
        ("UINT8", [3, 100], True),
        ("INT64", [2, 100], False),
        ("INT64", [1, 100], True),
    ],
)
def test_each_datatype_has_its_tolerance(datatype: str, theirs: list[float], agrees: bool) -> None:
    pair = [scores([1, 100], datatype=datatype)], [scores(theirs, datatype=datatype)]
    assert (difference(*pair, VALUES) == "") is agrees


def test_sixteen_bits_of_bfloat_are_compared_as_the_numbers_they_are() -> None:
    def bf16(*values: float) -> Tensor:
        return Tensor("y", "BF16", (np.array(values, np.float32).view(np.uint32) >> 16).astype("<u2"))

    assert difference([bf16(1, 100)], [bf16(1, 101)], VALUES) == ""
    assert difference([bf16(1, 100)], [bf16(1, 110)], VALUES) == (
        "output 'y' differs by 0.0909 of its greatest value, 0.03 is allowed"
    )


def test_a_tolerance_that_is_given_holds_in_place_of_the_usual_one() -> None:
    pair = [scores([1, 100])], [scores([1, 104])]
    assert difference(*pair, How(tolerance=0.05)) == ""
    assert difference(*pair, How(tolerance=0.03))


def test_texts_are_equal_or_not() -> None:
    def text(*words: bytes) -> Tensor:
        return Tensor("t", "BYTES", np.array(words, object))

    assert difference([text(b"a", b"b")], [text(b"a", b"b")], VALUES) == ""
    assert difference([text(b"a", b"b")], [text(b"a", b"c")], VALUES) == "1 of 2 values of output 't' are not equal"


@pytest.mark.parametrize("how", [BOXES, POSES], ids=["boxes", "poses"])
def test_findings_agree_where_they_lie_on_each_other_and_whatever_their_order(how: How) -> None:
    assert how.detections is not None
    joints = how.detections.joints
    ours = found((50, 50, 20, 40, 0.9), (150, 60, 30, 30, 0.8), joints=joints)
    assert difference([ours], [found((150, 61, 30, 30, 0.9), (50, 50, 21, 40, 0.7), joints=joints)], how) == ""
    assert difference([ours], [found((50, 50, 20, 40, 0.9), joints=joints)], how) == (
        "picture 0: 1 findings are missing, 0 are new"
    )
    moved = found((50, 50, 20, 40, 0.9), (250, 60, 30, 30, 0.8), joints=joints)
    assert difference([ours], [moved], how) == "picture 0: 1 findings are missing, 1 are new"


def test_a_finding_of_which_one_is_hardly_sure_and_the_other_hardly_not_agrees() -> None:
    assert difference([found((50, 50, 20, 40, 0.26))], [found((50, 50, 20, 40, 0.24))], BOXES) == ""
    assert difference([found((50, 50, 20, 40, 0.26))], [found((50, 50, 20, 40, 0.1))], BOXES) == (
        "picture 0: 1 findings are missing, 0 are new"
    )


def test_people_whose_boxes_agree_and_whose_joints_do_not_do_not_agree() -> None:
    ours, theirs = found((50, 50, 40, 80, 0.9), joints=17), found((50, 50, 40, 80, 0.9), joints=17)
    theirs.array[0, 5::3, 0] += 30
    assert difference([ours], [theirs], POSES) == "picture 0: 1 findings are missing, 1 are new"


def test_the_contract_says_by_what_is_compared() -> None:
    assert How.of({}) == How()
    assert How.of({"output": {"labels": ["a", "b"]}, "tolerance": 0.1}) == How(top=1, tolerance=0.1)
    assert How.of({"output": {"labels": True}, "top": 5}) == How.of({"top": 5}) == How(top=5)
    assert How.of({"output": {"labels": ["a"], "detections": {"joints": 17}}}) == How(detections=Wanted(joints=17))


def test_an_answer_is_told_by_its_first_values() -> None:
    said = told([scores([1 / 3, float("nan"), 3, 4, 5, 6, 7]), Tensor("t", "BYTES", np.array([b"x"], object))])
    assert said == [
        {
            "name": "scores",
            "datatype": "FP32",
            "shape": [1, 7],
            "data": [0.3333, "nan", 3.0, 4.0, 5.0, 6.0, "… 1 more"],
        },
        {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["x"]},
    ]
