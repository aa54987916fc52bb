"""What a build records and prints."""

from pathlib import Path

import pytest

from images import build, storage
from images.build import Built

IMAGE = Built("docker.io/library/penstock-serve:0.1.0", "abc", "sha256:12", 78_900_000, 225_940_000, "ff")


def test_the_table_has_sizes_in_megabytes() -> None:
    assert build.table({"penstock-serve": IMAGE}) == (
        "image           compressed  unpacked  digest\n"
        "penstock-serve     78.9 MB  225.9 MB  sha256:12"
    )  # fmt: skip


def test_a_record_holds_for_archives_that_are_there(tmp_path: Path) -> None:
    build._record(tmp_path, {"penstock-serve": IMAGE, "penstock-gone": IMAGE})
    (tmp_path / "penstock-serve.tar").touch()
    assert build.recorded(tmp_path) == {"penstock-serve": IMAGE}


@pytest.mark.parametrize("content", ["", "{", '{"penstock-serve": {"digest": "x"}}'])
def test_a_record_of_another_version_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "images.json").write_text(content)
    assert build.recorded(tmp_path) == {}


def test_an_unknown_image_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(storage.CannotBuild) as refused:
        build.build(["server"], tmp_path, print)
    assert str(refused.value) == "no image is named server; there are builder, operator, router, serve, triton"
