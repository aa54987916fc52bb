from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.errors import InvalidInput
from serving.translation import pictures
from serving.translation.pictures import Placement, Wanted

RED = (200, 100, 50)


def wanted(**said: Any) -> Wanted:
    found = Wanted.of({"input": {"image": {"size": [4, 6], **said}}})
    assert found is not None
    return found


def values(size: tuple[int, int], **said: Any) -> list[Any]:
    """Of a picture of one colour, width before height, as nested lists."""
    sample, _ = pictures.tensor(Image.new("RGB", size, RED), wanted(**said))
    assert sample.dtype == np.float32
    listed: list[Any] = sample.tolist()
    return listed


def test_a_contract_that_says_nothing_of_pictures_wants_none() -> None:
    assert Wanted.of({"output": {"labels": ["a"]}}) is None
    assert Wanted.of({"input": {}}) is None


def test_a_wide_picture_in_a_letterbox_keeps_its_shape_between_what_fills_the_rest() -> None:
    red = values((12, 4), fit="letterbox", pad=7)[0]
    assert red == [[7] * 6, [200] * 6, [200] * 6, [7] * 6]


def test_a_tall_picture_in_a_letterbox_has_it_left_and_right() -> None:
    red = values((8, 16), fit="letterbox")[0]
    assert red == [[114, 114, 200, 200, 114, 114]] * 4


def test_a_small_picture_in_a_letterbox_is_enlarged() -> None:
    _, placement = pictures.tensor(Image.new("L", (3, 1)), wanted(fit="letterbox", mode="grey"))
    assert placement == Placement((3, 1), left=0, top=1, across=2.0, down=2.0)


@pytest.mark.parametrize(("fit", "corners"), [("stretch", [[0, 0], [6, 4]]), ("letterbox", [[0, 1], [6, 3]])])
def test_points_of_the_input_are_found_again_in_the_picture(fit: str, corners: list[list[int]]) -> None:
    _, placement = pictures.tensor(Image.new("RGB", (120, 40)), wanted(fit=fit))
    assert placement.back(np.array(corners, float)).tolist() == [[0, 0], [120, 40]]


def test_values_are_scaled_then_less_the_mean_then_divided_each_channel_by_its_own() -> None:
    sample = np.array(values((6, 4), scale=0.01, mean=[0.5, 0.25, 0.0], std=[0.5, 0.25, 0.1]))
    assert sample.shape == (3, 4, 6)
    assert sample[:, 0, 0].tolist() == pytest.approx([3.0, 3.0, 5.0])
    one = np.array(values((6, 4), mean=[100], std=[50]))
    assert one[:, 3, 5].tolist() == pytest.approx([2.0, 0.0, -1.0])


def test_channels_may_be_the_other_way_round_or_last() -> None:
    assert np.array(values((6, 4), mode="bgr"))[:, 0, 0].tolist() == [50, 100, 200]
    last = np.array(values((6, 4), layout="NHWC"))
    assert (last.shape, last[0, 0].tolist()) == ((4, 6, 3), [200, 100, 50])
    grey = np.array(values((6, 4), layout="NHWC", mode="grey"))
    assert grey.shape == wanted(layout="NHWC", mode="grey").shape == (4, 6, 1)


def test_a_file_that_is_no_picture_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InvalidInput, match=r"^cannot be read as an image: "):
        pictures.opened(tmp_path / "a.png", wanted())
