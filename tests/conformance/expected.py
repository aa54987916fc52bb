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
EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "schedule_policy",
    "statistics",
}
OUTPUT = "scores"
LABELS = {OUTPUT: ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]}
METADATA = {"name": "echo", "versions": ["1"], "platform": "penstock_identity"}
DECLARED = "model 'echo' is managed by its declaration; delete that instead of unloading it"
EACH_COUNTS = "each model's own server counts for itself; ask for one at /v2/models/NAME/stats (/v2/models lists them)"
UNKNOWN = (
    "Request for unknown model: 'nope' is not served here; GET /v2/models lists what is served: digits, echo, rows"
)


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


def classes(y: npt.NDArray[Any], count: int, way: str) -> list[list[bytes]]:
    """The highest scores of each row with their classes, and labels where the model has them."""
    labels = LABELS[OUTPUT] if way == "direct" else None
    return [
        [
            f"{row[index]:f}:{index}{f':{labels[index]}' if labels else ''}".encode()
            for index in sorted(range(len(row)), key=lambda index: -row[index])[:count]
        ]
        for row in y.tolist()
    ]


def assert_counted(before: dict[str, Any], after: dict[str, Any], requests: int, rows: int) -> None:
    """That statistics of one version grew by so many requests with so many rows in all; numbers may come as text."""
    assert (after["name"], after["version"]) == ("digits", "1")
    assert int(after["inference_count"]) - int(before.get("inference_count", 0)) == rows
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        then, now = before["inference_stats"][part], after["inference_stats"][part]
        assert int(now["count"]) - int(then.get("count", 0)) == requests, part
        assert int(now.get("ns", 0)) >= int(then.get("ns", 0)), part
    assert sum(int(batch["compute_infer"]["count"]) for batch in after["batch_stats"]) == int(after["execution_count"])
    assert int(after["last_inference"]) > 1_600_000_000_000
