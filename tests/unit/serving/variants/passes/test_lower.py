from pathlib import Path

import onnx
import pytest

from serving.engines import artifact
from serving.variants.passes import base, lower
from serving.variants.recipe import Lower
from tests.rig import onnx_models


def made(folder: Path, asked: Lower) -> Path:
    lower.make(onnx_models.linear(folder / "in" / "model.onnx"), folder, asked, None, lambda share: None)
    return folder / base.file(asked)


def test_what_is_lowered_to_openvino_is_loaded_by_it_and_takes_and_gives_what_it_did(tmp_path: Path) -> None:
    loaded = artifact.load(made(tmp_path, Lower(target="openvino")))
    assert loaded.platform == "openvino"
    assert loaded.signature == artifact.load(tmp_path / "in" / "model.onnx").signature


def test_precisions_of_one_graph_have_digests_of_their_own(tmp_path: Path) -> None:
    plain, half = tmp_path / "plain", tmp_path / "half"
    first = made(plain, Lower(target="openvino"))
    second = made(half, Lower(target="openvino", precision="bf16"))
    assert onnx.load(first).graph == onnx.load(second).graph
    assert first.read_bytes() != second.read_bytes() != (half / "in" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("target", "precision", "why"),
    [
        ("openvino", "int8", "lower to openvino has no precision int8, it has fp32 and bf16"),
        ("litert", "bf16", "lower to litert has no precision bf16, it has fp32 and int8"),
        ("tensorrt", "int8", "lower to tensorrt has no precision int8, it has fp32 and fp16"),
    ],
)
def test_a_precision_that_an_engine_does_not_have_is_refused(target: str, precision: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Lower(target=target, precision=precision)  # type: ignore[arg-type]
