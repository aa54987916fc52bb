from pathlib import Path

import pytest

from serving.errors import ArtifactRefused
from serving.models import discovery
from serving.models.discovery import Found
from tests.rig import onnx_models


def test_a_path_may_be_a_file_a_folder_with_one_versions_or_a_folder_of_models(tmp_path: Path) -> None:
    file = onnx_models.linear(tmp_path / "digits.onnx")
    one = onnx_models.linear(tmp_path / "one" / "model.onnx")
    versions = [onnx_models.linear(tmp_path / "many" / number / "model.onnx") for number in ("1", "10")]
    (tmp_path / "many" / "notes").mkdir()

    assert discovery.discover([file], None) == [Found("digits", {"1": file})]
    assert discovery.discover([file], "seven") == [Found("seven", {"1": file})]
    assert discovery.discover([one.parent], None) == [Found("one", {"1": one})]
    assert discovery.discover([versions[0].parent.parent], None) == [
        Found("many", {"1": versions[0], "10": versions[1]})
    ]
    assert discovery.discover([one.parent, file], None) == [Found("digits", {"1": file}), Found("one", {"1": one})]
    file.unlink()
    assert discovery.discover([tmp_path], None) == [
        Found("many", {"1": versions[0], "10": versions[1]}),
        Found("one", {"1": one}),
    ]


def test_paths_without_models_or_without_clear_names_are_refused_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    a, b = onnx_models.linear(tmp_path / "a" / "m.onnx"), onnx_models.linear(tmp_path / "b" / "m.onnx")
    odd = onnx_models.linear(tmp_path / "a b.onnx")
    expected = ".openvino.onnx or .tensorrt.onnx or .onnx or .tflite or .identity.json"
    cases: list[tuple[list[Path], str | None, str]] = [
        ([tmp_path / "absent"], None,
         f"{tmp_path}/absent does not exist; give a model file or a folder with models"),
        ([tmp_path / "empty"], None, f"{tmp_path}/empty holds no model; expected a file {expected} in it"),
        ([tmp_path / "notes.txt"], None,
         f"{tmp_path}/notes.txt is no model; expected a folder, or a file {expected}"),
        ([a, b], None, "two of the paths hold a model named 'm'; rename one of them"),
        ([a.parent, b.parent], "m", "--name m was given for 2 models (a, b); give it with the path of one model"),
        ([odd], None,
         "'a b' is no model name (letters, digits, '.', '_' and '-', at most 128); use --name"),
    ]  # fmt: skip

    for paths, name, message in cases:
        with pytest.raises(ArtifactRefused) as refused:
            discovery.discover(paths, name)
        assert str(refused.value) == message
