from pathlib import Path

import pytest

from serving.engines import artifact
from serving.errors import ArtifactRefused
from tests.rig import onnx_models


def test_the_engine_is_found_by_the_suffix(tmp_path: Path) -> None:
    identity = tmp_path / "m.identity.json"
    identity.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}')

    assert artifact.load(identity).platform == "penstock_identity"
    assert artifact.load(onnx_models.linear(tmp_path / "m.onnx")).platform == "onnxruntime_onnx"


def test_a_link_that_was_given_by_name_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(onnx_models.linear(tmp_path / "folder" / "m.onnx"))

    assert artifact.load(tmp_path / "link.onnx").platform == "onnxruntime_onnx"


def test_what_cannot_be_a_model_is_refused_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    messages = {
        "model.pkl": "is no artifact this server can load; expected "
        ".openvino.onnx or .tensorrt.onnx or .onnx or .tflite or .identity.json",
        "absent.onnx": "cannot be read (No such file or directory); check the path",
        "folder.onnx": "is no regular file; give the model file itself",
        "empty.onnx": "is empty; fetch or export the model again",
    }

    for name, message in messages.items():
        with pytest.raises(ArtifactRefused) as refused:
            artifact.load(tmp_path / name)
        assert str(refused.value) == f"{tmp_path / name} {message}"


def test_an_engine_that_is_not_installed_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seldom.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(artifact.SUFFIXES, ".openvino.onnx", "seldom")
    path = onnx_models.linear(tmp_path / "m.openvino.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        artifact.load(path)

    assert str(refused.value) == (
        f"{path} needs the package nowhere_to_be_found, which is not installed here; install penstock[seldom]"
    )
