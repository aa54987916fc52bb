from pathlib import Path

import pytest

from serving.engines import artifact
from serving.errors import ArtifactRefused
from tests.rig import onnx_models


def test_without_its_provider_it_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    """No machine of ours has a GPU."""
    path = onnx_models.linear(tmp_path / "m.tensorrt.onnx")
    with pytest.raises(ArtifactRefused) as refused:
        artifact.load(path)
    assert str(refused.value) == (
        f"{path} is for TensorRT, and this ONNX Runtime has no TensorrtExecutionProvider; install onnxruntime-gpu "
        "instead of onnxruntime on a machine with an NVIDIA GPU, or leave it to another engine"
    )
