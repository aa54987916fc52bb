from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from serving.errors import ArtifactRefused
from serving.tensors import Signature, TensorSpec
from serving.variants import datasets
from serving.variants.datasets import Dataset

SIGNATURE = Signature((TensorSpec("features", "FP32", (-1, 2, 3)),), (TensorSpec("scores", "FP32", (-1, 10)),))
X = np.arange(42, dtype=np.float64).reshape(7, 2, 3)
PLAIN = {"features": [row.ravel().tolist() for row in X], "y": list(range(7)), "place": list("aabbaab")}


def as_parquet(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path, row_group_size=4)
    return path


def as_arrow(path: Path, **columns: object) -> Path:
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


def as_stream(path: Path, **columns: object) -> Path:
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


Written = Callable[..., Path]
KINDS = pytest.mark.parametrize("written", [as_parquet, as_arrow, as_stream])


def opened(path: Path, signature: Signature = SIGNATURE) -> Dataset:
    return datasets.opened(path, signature, {})


@KINDS
def test_rows_come_in_order_a_batch_at_a_time(tmp_path: Path, written: Written) -> None:
    dataset = opened(written(tmp_path / "d", **PLAIN))
    found = list(dataset.batches(3))
    assert (dataset.samples, dataset.facts) == (7, ("y", "place"))
    assert max(len(batch.inputs["features"]) for batch in found) <= 3
    assert [batch.first for batch in found] == np.cumsum([0, *(len(b.facts["y"]) for b in found[:-1])]).tolist()
    assert np.array_equal(np.concatenate([batch.inputs["features"] for batch in found]), X.astype(np.float32))
    assert np.concatenate([batch.facts["y"] for batch in found]).tolist() == list(range(7))
    assert "".join(np.concatenate([batch.facts["place"] for batch in found])) == "aabbaab"


@KINDS
def test_lists_of_labels_are_padded_and_tensors_may_say_their_own_shape(
    tmp_path: Path,
    written: Written,
) -> None:
    boxes = pa.array([[[1, 2, 3, 4]], [[5, 6, 7, 8], [9, 10, 11, 12]]], pa.list_(pa.list_(pa.float32())))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(X[:2].astype(np.float32))
    (batch,) = opened(written(tmp_path / "d", features=tensors, boxes=boxes)).batches(8)
    assert np.array_equal(batch.inputs["features"], X[:2].astype(np.float32))
    assert batch.facts["boxes"].tolist() == [[[1, 2, 3, 4], [0, 0, 0, 0]], [[5, 6, 7, 8], [9, 10, 11, 12]]]


def test_a_column_of_numbers_is_the_input_of_its_name(tmp_path: Path) -> None:
    signature = Signature(
        (TensorSpec("age", "FP32", (-1, 1)), TensorSpec("rooms", "INT64", (-1,))),
        (TensorSpec("price", "FP32", (-1, 1)),),
    )
    path = as_parquet(tmp_path / "d", age=[1.5, 2.5], rooms=pa.array([3, 4], pa.int32()), y=[7.0, 8.0])
    (batch,) = opened(path, signature).batches(8)
    assert batch.inputs["age"].tolist() == [[1.5], [2.5]]
    assert batch.inputs["rooms"].dtype == np.int64
    assert batch.inputs["rooms"].tolist() == [3, 4]


@KINDS
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"features": None}, "the model needs the array features or x; there are place, y: rename"),
        ({"features": [[1.0] * 6] * 6 + [None]}, "column features has no value in or after row "),
        ({"features": [[1.0] * 6] * 6 + [[float("nan")] * 6]}, "sample 6 of input features holds NaN or an infinity"),
        ({"features": [["a"] * 6] * 7}, "the model needs the array features or x; there are place, y: rename"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_in_words(
    tmp_path: Path,
    written: Written,
    changed: dict[str, object],
    words: str,
) -> None:
    columns = {name: column for name, column in (PLAIN | changed).items() if column is not None}
    with pytest.raises(ArtifactRefused) as refused:
        list(opened(written(tmp_path / "d", **columns)).batches(4))
    assert words in str(refused.value)


@KINDS
def test_samples_of_another_length_are_refused(tmp_path: Path, written: Written) -> None:
    with pytest.raises(ArtifactRefused, match=r"lists of 3 to 6 numbers from row 0 on|has shape \[4, 3\]"):
        list(opened(written(tmp_path / "d", features=[[1.0] * 3] * 4 + [[1.0] * 6] * 2 + [[1.0] * 3])).batches(8))


def test_a_row_of_2_to_the_26_numbers_in_a_small_parquet_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = pa.ListArray.from_arrays(pa.array([0, 2**26], pa.int32()), pa.array(np.zeros(2**26, np.int8)))
    path = as_parquet(tmp_path / "d", features=pa.array([[1.0] * 6]), boxes=bomb)
    assert path.stat().st_size < 2**20
    before = pa.total_allocated_bytes()
    with pytest.raises(ArtifactRefused, match="one row has 512 MiB; 256 are taken at most"):
        opened(path)
    assert pa.total_allocated_bytes() - before < 2**20


def test_a_parquet_file_far_larger_than_a_batch_is_read_page_by_page(tmp_path: Path) -> None:
    """64 MiB of one value in 100 KiB: what is there at a time is a page, not the row group."""
    rows = 2**24 // 6
    features = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 6, np.float32)), 6)
    path = tmp_path / "d"
    parquet.write_table(pa.table({"features": features}), path, row_group_size=rows)
    del features
    before = pa.total_allocated_bytes()
    dataset = opened(path)
    next(dataset.batches(32))
    assert dataset.samples == rows
    assert pa.total_allocated_bytes() - before < 2**23


def test_offsets_that_point_outside_of_an_arrow_file_are_refused(tmp_path: Path) -> None:
    path = as_arrow(tmp_path / "d", features=[[1.0] * 6, [1.0] * 6])
    right, wrong = (np.array([0, 6, last], np.int32).tobytes() for last in (12, 2**30))
    assert path.read_bytes().count(right) == 1
    path.write_bytes(path.read_bytes().replace(right, wrong))
    with pytest.raises(ArtifactRefused, match=r"cannot be read as Arrow: .*; write it again"):
        list(opened(path).batches(8))


@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff" + b"\7" * 9]
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d"
    path.write_bytes(content)
    with pytest.raises(ArtifactRefused, match=r"cannot be read as (Parquet|Arrow): "):
        opened(path)


def test_a_file_of_no_kind_that_is_read_is_refused_with_the_kinds_that_are(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(ArtifactRefused, match=r"is no dataset: \.npz, Parquet, Arrow, a folder of these two, and"):
        opened(path)
