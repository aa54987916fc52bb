"""One copy of a model's weights for several processes; here several engines in one."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.engines import artifact, onnx_weights
from serving.engines.base import Engine
from serving.settings import Settings
from tests.rig import onnx_models
from tests.rig.model_server import ROOT

X = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)


def layers(path: Path, seed: int = 0) -> Path:
    """A convolution and a product of 5 MB: what ONNX Runtime lays out anew for itself."""
    random = np.random.default_rng(seed)
    kernels = random.standard_normal((8, 1, 3, 3)).astype(np.float32)
    weights = random.standard_normal((8 * 32 * 32, 160)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"]),
        ],
        "layers",
        [onnx_models.value("x", TensorProto.FLOAT, ["n", 1, 32, 32])],
        [onnx_models.value("y", TensorProto.FLOAT, ["n", 160])],
        [numpy_helper.from_array(kernels, "k"), numpy_helper.from_array(weights, "w")],
    )
    return onnx_models.save(path, graph)


def answer(engine: Engine) -> bytes:
    return engine.infer({"x": X}, ["y"])[0].tobytes()


def test_engines_that_share_a_copy_answer_bit_for_bit_as_one_that_does_not(tmp_path: Path) -> None:
    path, shared = layers(tmp_path / "m.onnx"), tmp_path / "shared"
    shared.mkdir()
    said = Settings(threads=1)
    alone, one, other = artifact.load(path, said), artifact.load(path, said, shared), artifact.load(path, said, shared)

    assert len(list(shared.iterdir())) == 1
    assert {answer(alone), answer(one), answer(other)} == {answer(alone)}


def test_a_copy_goes_with_the_last_who_uses_it(tmp_path: Path) -> None:
    path, shared = layers(tmp_path / "m.onnx"), tmp_path / "shared"
    shared.mkdir()
    one, other = artifact.load(path, Settings(), shared), artifact.load(path, Settings(), shared)
    before = answer(one)

    one.close()
    assert len(list(shared.iterdir())) == 1
    assert answer(other) == before
    other.close()
    assert list(shared.iterdir()) == []


def test_new_content_under_the_same_name_is_another_copy(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    first = artifact.load(layers(tmp_path / "m.onnx", seed=1), Settings(), shared)
    second = artifact.load(layers(tmp_path / "m.onnx", seed=2), Settings(), shared)

    assert len(list(shared.iterdir())) == 2
    assert answer(first) != answer(second)


def test_weights_beside_the_model_are_part_of_what_is_shared(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    answers = []
    for seed in (1, 2):
        model = onnx.load(layers(tmp_path / "whole.onnx", seed=seed))
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        answers.append(answer(artifact.load(tmp_path / "m.onnx", Settings(threads=1), shared)))
        assert answers[-1] == answer(artifact.load(tmp_path / "whole.onnx", Settings(threads=1)))
    assert answers[0] != answers[1]


def test_a_small_model_is_not_worth_a_copy(tmp_path: Path) -> None:
    artifact.load(onnx_models.linear(tmp_path / "m.onnx"), Settings(), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_where_no_copy_can_be_made_the_model_is_loaded_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = layers(tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING):
        engine = artifact.load(path, Settings(threads=1), tmp_path / "no such folder")

    assert answer(engine) == answer(artifact.load(path, Settings(threads=1)))
    assert "no shared copy of it could be made" in caplog.text


def test_processes_that_load_at_the_same_time_make_one_copy(tmp_path: Path) -> None:
    path, shared = layers(tmp_path / "m.onnx"), tmp_path / "shared"
    shared.mkdir()
    code = (
        "import sys, pathlib\n"
        "from serving.engines import artifact\nfrom serving.settings import Settings\n"
        "engine = artifact.load(pathlib.Path(sys.argv[1]), Settings(), pathlib.Path(sys.argv[2]))\n"
        "print('loaded', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path), str(shared)]
    loading = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        for process in loading:
            assert process.stdout is not None
            assert process.stdout.readline() == "loaded\n"
        assert len(list(shared.iterdir())) == 1
        maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in loading]
        assert all(f"{shared}/" in text for text in maps)
    finally:
        for process in loading:
            process.communicate()


def test_whoever_comes_when_the_last_one_goes_makes_it_again(tmp_path: Path) -> None:
    path, shared = layers(tmp_path / "m.onnx"), tmp_path / "shared"
    shared.mkdir()
    for _ in range(3):
        artifact.load(path, Settings(), shared).close()
    assert list(shared.iterdir()) == []
    assert path.stat().st_size > onnx_weights.MIN_BYTES
