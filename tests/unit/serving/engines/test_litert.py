from pathlib import Path

import numpy as np
import pytest

from serving.engines import artifact, litert
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed
from serving.settings import Settings
from serving.tensors import Signature, TensorSpec
from tests.rig import tflite_models

X = np.array([[-2, -0.5, 0.5, 2]], np.float32)


def signature(rows: int) -> Signature:
    return Signature((TensorSpec("image", "FP32", (rows, 4)),), (TensorSpec("scores", "FP32", (rows, 4)),))


def test_names_are_those_of_the_signature_and_a_free_size_is_minus_one(tmp_path: Path) -> None:
    loaded = artifact.load(tflite_models.relu(tmp_path / "m.tflite"), Settings(threads=1))
    assert (loaded.platform, loaded.signature) == ("litert", signature(-1))


def test_batches_of_any_size_are_taken_one_after_the_other(tmp_path: Path) -> None:
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite"))
    for size in (3, 1, 5):
        (y,) = loaded.infer({"image": np.repeat(X, size, axis=0)}, ["scores"])
        assert y.tolist() == [[0, 0, 0.5, 2]] * size


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_file_that_computes_single_rows_is_asked_for_each(tmp_path: Path, size: int) -> None:
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite", free=False, signature=litert.ROW))
    assert loaded.signature == signature(-1)
    (y,) = loaded.infer({"image": np.arange(size, dtype=np.float32)[:, None] * X}, ["scores"])
    assert y.tolist() == [[0, 0, 0.5 * row, 2 * row] for row in range(size)]


def test_any_other_file_takes_the_size_it_has(tmp_path: Path) -> None:
    assert litert.load(tflite_models.relu(tmp_path / "m.tflite", free=False)).signature == signature(1)


def test_floats_become_the_integers_that_stand_for_them_and_back(tmp_path: Path) -> None:
    """With what stands in the file: fed as they are, -2 … 2 would mean the integers -2 … 2, so 0.5 … 2.5."""
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite", integers=True))
    assert loaded.signature == signature(-1)
    (y,) = loaded.infer({"image": X}, ["scores"])
    assert y.dtype == np.float32
    assert y.tolist() == [[0, 0, 0.5, 2]]


def test_what_is_beyond_the_integers_is_the_last_of_them(tmp_path: Path) -> None:
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite", integers=True))
    (y,) = loaded.infer({"image": np.array([[1e9, -1e9, 0, 0]], np.float32)}, ["scores"])
    assert y.tolist() == [[(127 - tflite_models.ZERO_POINT) * tflite_models.SCALE, 0, 0, 0]]


def test_an_answer_outlives_the_next_call(tmp_path: Path) -> None:
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite"))
    (first,) = loaded.infer({"image": X}, ["scores"])
    loaded.infer({"image": -X}, ["scores"])
    assert first.tolist() == [[0, 0, 0.5, 2]]


def test_rows_end_when_they_are_interrupted(tmp_path: Path) -> None:
    loaded = litert.load(tflite_models.relu(tmp_path / "m.tflite", free=False, signature=litert.ROW))
    fired = Interrupt()
    fired.fire()
    with pytest.raises(InferenceFailed, match="it was interrupted"):
        loaded.infer({"image": X}, ["scores"], fired)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x1c\x00\x00\x00ONNX", r"is no TFLite model \(it does not say TFL3\); convert it again"),
        (b"\x1c\x00\x00\x00TFL3", r"is no model that LiteRT can load \(.*\); check how it was converted"),
    ],
)
def test_what_is_no_model_is_refused_with_the_next_step(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ArtifactRefused, match=why):
        litert.load(tmp_path / "m.tflite")
