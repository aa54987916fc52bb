"""What every client must see: an echo of every datatype, and the digits model's answers as ONNX Runtime gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"
DIGITS = EXAMPLE / "model.onnx"

EVERYTHING: dict[str, npt.NDArray[Any]] = {
    "BOOL": np.array([True, False]),
    "UINT8": np.array([0, 255], np.uint8),
    "UINT16": np.array([0, 65535], np.uint16),
    "UINT32": np.array([0, 2**32 - 1], np.uint32),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "INT8": np.array([-128, 127], np.int8),
    "INT16": np.array([-(2**15), 2**15 - 1], np.int16),
    "INT32": np.array([-(2**31), 2**31 - 1], np.int32),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "FP16": np.array([0.5, -65504], np.float16),
    "FP32": np.array([0.1, -3e38], np.float32),
    "FP64": np.array([0.1, -1e308], np.float64),
    "BYTES": np.array([b"sieben", "七".encode()], np.object_),
}
"""An input of the model ``echo`` by each name, of the datatype of that name."""
JSON_CAN_CARRY = [name for name in EVERYTHING if name != "FP16"]
METADATA = {"name": "echo", "versions": ["1"], "platform": "penstock_identity"}
DECLARED = "model 'echo' is managed by its declaration; delete that instead of unloading it"
UNKNOWN = "Request for unknown model: 'nope' is not served here"


def digits() -> tuple[str, npt.NDArray[Any], str, npt.NDArray[Any]]:
    """Input name, a batch of held-out digits, output name, and the answers of ONNX Runtime called directly."""
    session = onnxruntime.InferenceSession(str(DIGITS), providers=["CPUExecutionProvider"])
    x = np.load(EXAMPLE / "eval.npz")["x"][:3].astype(np.float32)
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    (y,) = session.run([target], {source: x})
    return source, x, target, y


def assert_echo(name: str, answer: npt.NDArray[Any]) -> None:
    """That an answer is what was sent, in value and in kind."""
    sent = EVERYTHING[name]
    given = [item.encode() if isinstance(item, str) else item for item in answer.tolist()]
    assert given == sent.tolist(), (name, answer, sent)
    assert answer.dtype == sent.dtype or name == "BYTES", (name, answer.dtype)
