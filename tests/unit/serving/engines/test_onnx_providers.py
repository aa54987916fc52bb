"""Who computes a model: as asked, or not at all."""

from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest

from serving import settings
from serving.engines import artifact, onnx_providers
from serving.errors import ArtifactRefused, InvalidInput
from serving.settings import OnnxRuntime, Settings
from tests.rig import onnx_models


@pytest.mark.parametrize(
    ("provider", "advice"),
    [
        ("CUDAExecutionProvider", "install onnxruntime-gpu instead of onnxruntime"),
        ("TensorrtExecutionProvider", "install onnxruntime-gpu instead of onnxruntime"),
        ("OpenVINOExecutionProvider", "install onnxruntime-openvino instead of onnxruntime"),
        ("cpu", "check its name"),
    ],
)
def test_a_provider_that_this_build_lacks_is_refused_with_what_it_has_and_what_to_install(
    provider: str, advice: str, tmp_path: Path
) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")
    said = Settings(onnxruntime=OnnxRuntime(providers=({provider: {"device_id": 0}}, "CPUExecutionProvider")))

    with pytest.raises(ArtifactRefused) as refused:
        artifact.load(path, said)

    assert str(refused.value) == (
        f"{path} asks for {provider}, which this build of ONNX Runtime does not have "
        f"(it has {', '.join(onnxruntime.get_available_providers())}); {advice}, or change onnxruntime.providers"
    )


def test_a_provider_that_onnx_runtime_did_without_is_refused(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    with pytest.raises(ArtifactRefused, match="CUDAExecutionProvider, which could not be started on this machine"):
        onnx_providers.check(path, [("CUDAExecutionProvider", {})], session)


def test_options_reach_the_provider_in_its_own_words(tmp_path: Path) -> None:
    asked = settings.of(
        tmp_path / "m.onnx", {"onnxruntime": {"providers": [{"CPUExecutionProvider": {"a": True, "b": 0.5, "c": "x"}}]}}
    ).onnxruntime.providers

    assert onnx_providers.named(tmp_path, asked) == [("CPUExecutionProvider", {"a": "1", "b": "0.5", "c": "x"})]


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_the_answer_is_the_same_however_much_the_graph_is_optimised(level: str, tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")
    said = settings.of(path, {"onnxruntime": {"graphOptimization": level, "providers": ["CPUExecutionProvider"]}})
    x = np.ones((1, 4), np.float32)

    assert np.allclose(artifact.load(path, said).infer({"x": x}, ["y"])[0], x @ onnx_models.WEIGHTS)


@pytest.mark.parametrize("providers", [[], [{}], [{"A": {}, "B": {}}], [7]])
def test_providers_that_cannot_be_understood_are_refused(providers: list[object]) -> None:
    with pytest.raises(InvalidInput, match=r"onnxruntime\.providers"):
        settings.parse(orjson.dumps({"onnxruntime": {"providers": providers}}), "here")
