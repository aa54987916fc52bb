from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from serving.errors import ArtifactRefused
from serving.tensors import Signature, TensorSpec
from serving.variants.datasets import Npz

SIGNATURE = Signature((TensorSpec("image", "FP32", (-1, 1, 4, 4)),), (TensorSpec("scores", "FP32", (-1, 10)),))


def written(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def pictures(samples: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.arange(samples * 16, dtype=np.float32).reshape(samples, 1, 4, 4)


def test_samples_come_in_order_a_batch_at_a_time(tmp_path: Path) -> None:
    dataset = Npz(written(tmp_path / "d.npz", x=pictures(7), y=np.arange(7)), SIGNATURE)
    found = list(dataset.batches(3))
    assert [(batch.first, len(batch.inputs["image"])) for batch in found] == [(0, 3), (3, 3), (6, 1)]
    assert np.array_equal(np.concatenate([batch.inputs["image"] for batch in found]), pictures(7))
    assert np.array_equal(np.concatenate([batch.facts["y"] for batch in found]), np.arange(7))
    assert (dataset.samples, dataset.facts) == (7, ("y",))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.arange(3)}, "the model needs the array image or x; there are y: rename"),
        (
            {"x": pictures(3)[:, :, :2]},
            "array x has shape [3, 1, 2, 4], and input image of the model takes [any, 1, 4, 4]",
        ),
        ({"x": pictures(3).astype(np.float64)}, "array x is float64, and input image of the model takes float32"),
        ({"x": pictures(3), "y": np.arange(4)}, "array y has 4 samples and x has 3; give both the same number"),
        ({"x": pictures(0), "y": np.arange(0)}, "has no samples; give some"),
        ({"x": np.asfortranarray(pictures(3))}, "array x is in Fortran order; save numpy.ascontiguousarray of it"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_in_words(tmp_path: Path, arrays: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        Npz(written(tmp_path / "d.npz", **arrays), SIGNATURE)
    assert words in str(refused.value)


def test_a_sample_that_is_no_number_is_named(tmp_path: Path) -> None:
    x = pictures(5)
    x[3, 0, 1, 1] = np.nan
    dataset = Npz(written(tmp_path / "d.npz", x=x), SIGNATURE)
    with pytest.raises(ArtifactRefused, match="sample 3 of input image holds NaN or an infinity"):
        list(dataset.batches(2))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = written(tmp_path / "d.npz", x=pictures(1), y=np.array([object()]))
    with pytest.raises(ArtifactRefused, match="array y holds Python objects, which are never loaded"):
        Npz(path, SIGNATURE)


def _npz_with_header(path: Path, shape: tuple[int, ...], content: bytes) -> Path:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", file.getvalue() + content)
    return path


def test_a_sample_of_2_to_the_40_elements_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = _npz_with_header(tmp_path / "d.npz", (1, 2**40), b"")
    with pytest.raises(ArtifactRefused, match="one sample of x has 4194304 MiB; 256 are taken at most"):
        Npz(path, SIGNATURE)


def test_an_array_that_ends_before_its_promised_length_is_refused(tmp_path: Path) -> None:
    path = _npz_with_header(tmp_path / "d.npz", (2**40, 1, 4, 4), b"\0" * 128)
    with pytest.raises(ArtifactRefused, match="array x ends early: 128 of"):
        list(Npz(path, SIGNATURE).batches(32))


def test_a_bomb_is_read_no_further_than_a_batch(tmp_path: Path) -> None:
    """64 MiB of zeros in 64 KiB: the first batch needs 2 KiB of it."""
    path = _npz_with_header(tmp_path / "d.npz", (2**20, 1, 4, 4), b"\0" * 2**26)
    first = next(Npz(path, SIGNATURE).batches(32))
    assert first.inputs["image"].nbytes == 2048


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(ArtifactRefused, match=r"is no \.npz of plain arrays"):
        Npz(path, SIGNATURE)
