from pathlib import Path

import numpy as np
import pytest

from serving.engines import identity
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InvalidInput
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
     '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}',
     '{"stream": 1, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}',
     '{"stream": true, "inputs": [{"name": "x", "datatype": "FP32", "shape": [2]}]}',
     '{"stream": true, "inputs": [{"name": "x", "datatype": "FP32", "shape": []}]}'],
)  # fmt: skip
def test_a_file_that_describes_no_model_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text(text)

    with pytest.raises(ArtifactRefused, match=str(path)):
        identity.load(path)


def test_a_stream_has_one_response_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"stream": true, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}')
    engine = identity.load(path)
    assert isinstance(engine, identity.StreamingIdentityEngine)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)

    responses = list(engine.stream({"x": x}, ["x"], Interrupt()))

    assert [[array.tolist() for array in response] for response in responses] == [
        [[[0.0, 1.0]]], [[[2.0, 3.0]]], [[[4.0, 5.0]]],
    ]  # fmt: skip


def test_inputs_with_different_numbers_of_rows_have_no_rows_in_common() -> None:
    engine = identity.StreamingIdentityEngine((TensorSpec("x", "FP32", (-1,)), TensorSpec("y", "FP32", (-1,))))

    with pytest.raises(InvalidInput, match=r"^the inputs have \[1, 2\] rows, expected the same number in each$"):
        list(engine.stream({"x": np.zeros(1), "y": np.zeros(2)}, ["x"], Interrupt()))
