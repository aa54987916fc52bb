"""The files of examples/digits agree with each other and with what its README says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import yaml
from PIL import Image

from operators.api.endpoint import Endpoint
from operators.api.kinds import parse
from operators.api.model import Model
from operators.cli import manifests
from serving.variants.intervals import paired_drop

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
REVISIONS = (DIGITS, DIGITS / "next", DIGITS / "next" / "broken")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SCALE = 0.00392156863
MAX_BYTES = 4 * 1024 * 1024

Array = npt.NDArray[np.float32]


def samples(file: str) -> dict[str, npt.NDArray[np.generic]]:
    with np.load(DIGITS / file, allow_pickle=False) as arrays:
        return dict(arrays)


def held_out() -> tuple[Array, npt.NDArray[np.int64]]:
    arrays = samples("eval.npz")
    return arrays["x"].astype(np.float32, copy=False), arrays["y"].astype(np.int64, copy=False)


def session(revision: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(revision / "model.onnx", options, providers=["CPUExecutionProvider"])


def scores(revision: Path, x: Array) -> Array:
    return np.asarray(session(revision).run(["scores"], {"image": x})[0], dtype=np.float32)


def accuracy(revision: Path) -> float:
    x, y = held_out()
    return float((scores(revision, x).argmax(axis=1) == y).mean())


def loss(revision: Path) -> float:
    x, y = held_out()
    return float(-np.log(scores(revision, x)[np.arange(len(y)), y]).mean())


def picture(name: str) -> npt.NDArray[np.uint8]:
    with Image.open(DIGITS / f"{name}.png") as image:
        assert (image.mode, image.size) == ("L", (32, 32))
        return np.asarray(image)


def tensor(name: str) -> Array:
    return (picture(name) * np.float32(SCALE)).reshape(1, 1, 32, 32)


def test_the_first_revision_reads_the_held_out_digits() -> None:
    assert accuracy(DIGITS) >= 0.985


def test_the_second_revision_is_better_than_the_first() -> None:
    assert accuracy(DIGITS / "next") >= accuracy(DIGITS)
    assert loss(DIGITS / "next") < 0.75 * loss(DIGITS)


def test_the_broken_revision_reads_almost_nothing_but_zeros() -> None:
    assert accuracy(DIGITS / "next" / "broken") < 0.3


def test_the_readme_says_what_the_evaluation_prints() -> None:
    command = [sys.executable, str(DIGITS / "evaluate.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed in (DIGITS / "README.md").read_text()


@pytest.mark.parametrize("revision", REVISIONS, ids=["first", "next", "broken"])
def test_every_revision_takes_a_batch_of_any_size_and_answers_probabilities(revision: Path) -> None:
    model = session(revision)
    assert [(i.name, i.type, i.shape) for i in model.get_inputs()] == [("image", "tensor(float)", ["N", 1, 32, 32])]
    assert [(o.name, o.type, o.shape) for o in model.get_outputs()] == [("scores", "tensor(float)", ["N", 10])]
    for count in (1, 3):
        answer = scores(revision, held_out()[0][:count])
        assert answer.shape == (count, 10)
        np.testing.assert_allclose(answer.sum(axis=1), np.ones(count), atol=1e-5)


@pytest.mark.parametrize("name", ["plain.yaml", "next/model.yaml", "next/broken/model.yaml"])
def test_every_revision_is_the_same_model_under_the_same_contract(name: str) -> None:
    assert yaml.safe_load((DIGITS / name).read_text()) == {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "digits"},
        "spec": {
            "source": {"uri": "model.onnx"},
            "contract": {
                "input": {"image": {"size": [32, 32], "mode": "grey", "scale": SCALE}},
                "output": {"labels": NAMES},
            },
            "variants": [{"name": "fp32"}],
        },
    }


@pytest.mark.parametrize("revision", REVISIONS[:2], ids=["first", "next"])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_read_as_what_it_is_named(revision: Path, name: str) -> None:
    answer = scores(revision, tensor(name))[0]
    assert NAMES[int(answer.argmax())] == name
    assert answer.max() > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_times_the_scale_of_the_contract_is_a_held_out_sample(name: str) -> None:
    x, y = held_out()
    distance = np.abs(x - tensor(name)).max(axis=(1, 2, 3))
    assert distance.min() < 1e-6
    assert NAMES[y[distance.argmin()]] == name


def test_the_samples_have_the_types_and_values_the_model_takes() -> None:
    evaluation, calibration = samples("eval.npz"), samples("calibration.npz")
    assert {name: (a.dtype, a.shape) for name, a in evaluation.items()} == {
        "x": (np.dtype(np.float32), (989, 1, 32, 32)),
        "y": (np.dtype(np.int64), (989,)),
    }
    assert {name: (a.dtype, a.shape) for name, a in calibration.items()} == {
        "x": (np.dtype(np.float32), (200, 1, 32, 32))
    }
    training = samples("train.npz")
    assert {name: (a.dtype, a.shape) for name, a in training.items()} == {
        "x": (np.dtype(np.float32), (808, 1, 32, 32)),
        "y": (np.dtype(np.int64), (808,)),
    }
    for x in (held_out()[0], calibration["x"].astype(np.float32), training["x"].astype(np.float32)):
        levels = np.rint(x / np.float32(SCALE)).astype(np.uint8)
        np.testing.assert_array_equal(levels.astype(np.float32) * np.float32(SCALE), x)
    assert sorted(set(held_out()[1].tolist())) == list(range(10))


def test_no_held_out_sample_was_seen_in_training_or_calibration() -> None:
    evaluation, calibration, training = (
        {sample.tobytes() for sample in samples(file)["x"]} for file in ("eval.npz", "calibration.npz", "train.npz")
    )
    assert (len(evaluation), len(calibration), len(training)) == (989, 200, 808)
    assert not evaluation & training
    assert calibration <= training


def test_every_digit_has_the_samples_that_its_bound_takes() -> None:
    """One lost among them is less than the 5 points that model.yaml allows."""
    labels = held_out()[1]
    assert all(paired_drop(1, 0, int((labels == digit).sum()), 0.05) < 0.05 for digit in range(10))


def test_the_example_fits_into_four_mebibytes() -> None:
    shipped = [path for path in DIGITS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in shipped) <= MAX_BYTES


def test_the_request_for_curl_is_the_picture_of_a_seven() -> None:
    (tensor,) = json.loads((DIGITS / "seven.json").read_text())["inputs"]
    data = np.asarray(tensor.pop("data"), dtype=np.float32)
    assert tensor == {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32"}
    np.testing.assert_allclose(data.reshape(32, 32), picture("seven") * SCALE, atol=1e-6)


def test_the_experiment_is_over_models_whose_files_are_here() -> None:
    given = manifests.load([str(DIGITS / "experiment" / "endpoint.yaml")], "default")
    endpoint, models = parse(given[0].data), [parse(one.data) for one in given[1:]]
    assert isinstance(endpoint, Endpoint)
    assert [arm.model for arm in endpoint.spec.arms] == [model.metadata.name for model in models]
    sources = [model.spec.source.uri for model in models if isinstance(model, Model)]
    assert [Path(uri.removeprefix("file://")).resolve().parent for uri in sources] == list(REVISIONS)
