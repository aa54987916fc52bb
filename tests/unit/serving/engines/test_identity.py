from pathlib import Path

import pytest

from serving.engines import identity
from serving.errors import ArtifactRefused
from serving.tensors import Signature, TensorSpec


def test_the_signature_is_that_of_the_file_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 2]}]}')
    spec = (TensorSpec("x", "BYTES", (-1, 2)),)

    assert identity.load(path).signature == Signature(spec, spec)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"inputs": []}', '{"inputs": [{"name": "x"}]}',
     '{"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1]}]}',
     '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}'],
)  # fmt: skip
def test_a_file_that_describes_no_model_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text(text)

    with pytest.raises(ArtifactRefused, match=str(path)):
        identity.load(path)
