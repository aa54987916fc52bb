from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from serving.errors import ArtifactRefused
from serving.tensors import Signature, TensorSpec
from serving.variants import datasets
from serving.variants.datasets import Dataset

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("scores", "FP32", (-1, 10)),))


def part(path: Path, *labels: int, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[float(label), -float(label)] for label in labels]
    table = pa.table({"x": rows, "y": list(labels), **more})
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return path


def opened(folder: Path) -> Dataset:
    return datasets.opened(folder, SIGNATURE, {})


def test_rows_of_one_file_come_after_those_of_another_by_name(tmp_path: Path) -> None:
    part(tmp_path / "part-2.arrow", 5)
    part(tmp_path / "part-1.parquet", 1, 2, 3)
    part(tmp_path / "later" / "part-0.parquet", 0)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-1.parquet.crc").write_bytes(b"1234")
    dataset = opened(tmp_path)
    found = list(dataset.batches(2))
    assert (dataset.samples, dataset.facts) == (5, ("y",))
    assert [batch.facts["y"].tolist() for batch in found] == [[0], [1, 2], [3], [5]]
    assert [batch.first for batch in found] == [0, 1, 3, 4]
    assert np.concatenate([batch.inputs["x"] for batch in found])[:, 1].tolist() == [0, -1, -2, -3, -5]


def test_a_file_with_other_columns_is_named(tmp_path: Path) -> None:
    part(tmp_path / "a.parquet", 1)
    part(tmp_path / "b.parquet", 2, place=["in"])
    with pytest.raises(ArtifactRefused) as refused:
        opened(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/b.parquet has the columns y, place beside the inputs, and {tmp_path}/a.parquet has y; "
        "give all files the same"
    )


def test_a_link_to_somewhere_else_is_no_part(tmp_path: Path) -> None:
    outside = part(tmp_path / "outside.parquet", 1)
    part(tmp_path / "folder" / "a.parquet", 2)
    (tmp_path / "folder" / "b.parquet").symlink_to(outside)
    with pytest.raises(ArtifactRefused, match=r"b\.parquet is a link; put the file there"):
        opened(tmp_path / "folder")


def test_a_folder_with_anything_else_in_it_is_no_folder_of_parts(tmp_path: Path) -> None:
    part(tmp_path / "a.parquet", 1)
    assert datasets.is_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert not datasets.is_folder(tmp_path)
    (tmp_path / "labels.csv").touch()
    assert datasets.is_folder(tmp_path)
