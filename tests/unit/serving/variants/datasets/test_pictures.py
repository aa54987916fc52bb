from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from operators.cli import infer
from serving.errors import ArtifactRefused
from serving.tensors import Signature, TensorSpec
from serving.variants import datasets
from serving.variants.datasets import Dataset

SIGNATURE = Signature((TensorSpec("image", "FP32", (-1, 1, 4, 6)),), (TensorSpec("scores", "FP32", (-1, 10)),))
CONTRACT: dict[str, Any] = {
    "input": {"image": {"size": [4, 6], "mode": "grey", "scale": 0.5}},
    "output": {"labels": ["cat", "dog"]},
}


def folder(path: Path, table: str = "file,label,place\na.png,cat,in\nb/b.png,dog,out\na.png,1,in\n") -> Path:
    noise = np.random.default_rng(0)
    (path / "b").mkdir(parents=True)
    Image.fromarray(noise.integers(0, 256, (4, 6), np.uint8)).save(path / "a.png")
    Image.fromarray(noise.integers(0, 256, (9, 7, 3), np.uint8)).save(path / "b" / "b.png")
    (path / "labels.csv").write_text(table)
    return path


def opened(path: Path, contract: dict[str, Any] = CONTRACT) -> Dataset:
    return datasets.opened(path, SIGNATURE, contract)


def test_images_come_in_order_a_batch_at_a_time_with_what_the_table_says(tmp_path: Path) -> None:
    dataset = opened(folder(tmp_path / "d"))
    first, second = dataset.batches(2)
    assert (dataset.samples, dataset.facts) == (3, ("y", "place"))
    assert (first.first, first.facts["y"].tolist(), first.facts["place"].tolist()) == (0, [0, 1], ["in", "out"])
    assert (second.first, second.facts["y"].tolist(), second.inputs["image"].shape) == (2, [1], (1, 1, 4, 6))
    assert np.array_equal(
        first.inputs["image"][0, 0], np.asarray(Image.open(tmp_path / "d" / "a.png")) * np.float32(0.5)
    )


def test_an_image_becomes_the_tensor_that_infer_sends(tmp_path: Path) -> None:
    dataset = opened(folder(tmp_path / "d"))
    metadata = [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 4, 6]}]
    for file, x in zip(("a.png", "b/b.png"), next(dataset.batches(2)).inputs["image"], strict=True):
        sent = infer.request(tmp_path / "d" / file, metadata, CONTRACT)
        assert sent.body.endswith(x.tobytes())


@pytest.mark.parametrize(("labels", "y"), [("1 2", [1, 2]), ("1 2.5", [1.0, 2.5])])
def test_labels_may_be_numbers(tmp_path: Path, labels: str, y: list[float]) -> None:
    one, other = labels.split()
    found = next(opened(folder(tmp_path / "d", f"file,label\na.png,{one}\na.png,{other}\n")).batches(8)).facts["y"]
    assert (found.tolist(), found.dtype.kind) == (y, "i" if isinstance(y[1], int) else "f")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("label\n1\n", "has no column file; its first line must name one, as in file,label"),
        ("file,label\n", "has no samples; give some"),
        ("file,label\na.png\n", "line 2 has not one value a column; mend it"),
        ("file,label\na.png,1,2\n", "line 2 has not one value a column; mend it"),
        ("file,label\na.png,horse\n", "label 'horse' of a.png is no number and none of spec.contract.output.labels"),
        ("file,label\nc.png,1\n", "there is no file c.png; put it there, or remove the line"),
        ("file,label\nb,1\n", "there is no file b; put it there, or remove the line"),
        ("file,label\n../d/a.png,1\n", "../d/a.png is outside of the folder, or a link"),
        ("file,label\nb/../../secret.png,1\n", "b/../../secret.png is outside of the folder, or a link"),
        ("file,label\n/etc/passwd,1\n", "/etc/passwd is outside of the folder, or a link"),
        ("file,label\nlink.png,1\n", "link.png is outside of the folder, or a link"),
        ("file,label\nbeside/secret.png,1\n", "beside/secret.png is outside of the folder, or a link"),
        ("file,label\nlabels.csv,1\n", "labels.csv cannot be read as an image"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused_in_words(tmp_path: Path, table: str, words: str) -> None:
    path = folder(tmp_path / "d", table)
    (tmp_path / "secret.png").write_bytes((path / "a.png").read_bytes())
    (path / "link.png").symlink_to(path / "a.png")
    (path / "beside").symlink_to(tmp_path)
    with pytest.raises(ArtifactRefused) as refused:
        list(opened(path).batches(8))
    assert words in str(refused.value)


def bomb(side: int) -> bytes:
    """A PNG of side x side black points, packed twice as hard as one may."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (10_000, "claims 10000 x 10000 points; 64 million are taken at most"),
        (2**30, "cannot be read as an image: Image size"),
        (1_000, "cannot be read as an image: image file is truncated"),
    ],
)
def test_an_image_that_claims_more_than_it_may_is_refused_before_it_is_unpacked(
    tmp_path: Path, side: int, words: str
) -> None:
    path = folder(tmp_path / "d")
    (path / "a.png").write_bytes(bomb(side))
    with pytest.raises(ArtifactRefused) as refused:
        list(opened(path).batches(8))
    assert words in str(refused.value)


def test_without_a_contract_an_image_is_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactRefused, match=r"does not say how one becomes a tensor; set spec\.contract\.input\.image"
    ):
        opened(folder(tmp_path / "d"), {})


def test_a_contract_of_another_size_than_the_model_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactRefused, match=r"array image has shape \[1, 3, 8, 8\], and input image of the model takes"
    ):
        opened(folder(tmp_path / "d"), {"input": {"image": {"size": [8, 8]}}})
