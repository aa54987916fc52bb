"""The pose example's files are small, and are what its README says of them; what its variants are is a build's test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import yaml

from operators.cli import infer
from serving.variants import metrics

POSE = Path(__file__).parents[3] / "examples" / "pose"
MAX_BYTES = 4 * 1024 * 1024


def shipped() -> list[Path]:
    return [path for path in POSE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_the_example_fits_into_four_mebibytes_and_its_readme_names_every_file() -> None:
    assert sum(path.stat().st_size for path in shipped()) <= MAX_BYTES
    said = (POSE / "README.md").read_text()
    assert [path.name for path in shipped() if f"`{path.name}`" not in said and path.name != "README.md"] == []


def test_the_network_is_as_good_as_the_readme_says() -> None:
    session = onnxruntime.InferenceSession(POSE / "model.onnx", providers=["CPUExecutionProvider"])
    with np.load(POSE / "eval.npz") as samples:
        x, boxes, keypoints = samples["x"], samples["boxes"], samples["keypoints"]
    metric = metrics.named("ap-oks")
    parts = [slice(first, first + 100) for first in range(0, len(x), 100)]
    rows = np.concatenate(
        [
            metric.outcomes(np.asarray(session.run(None, {"images": x[part]})[0]), boxes[part], keypoints[part])
            for part in parts
        ]
    )
    printed = (POSE / "README.md").read_text().partition("VARIANT ")[2].splitlines()[1].split()
    assert printed[0] == "fp32"
    assert f"{metric.value(rows):.4f}" in printed


def test_what_infer_prints_of_the_picture_is_what_the_readme_says() -> None:
    contract = yaml.safe_load((POSE / "model.yaml").read_text())["spec"]["contract"]
    sent = infer.request(POSE / "two.png", [{"name": "images", "datatype": "FP32"}], contract)
    x = np.frombuffer(sent.body[sent.header_length :], np.float32).reshape(1, 3, 96, 96)
    session = onnxruntime.InferenceSession(POSE / "model.onnx", providers=["CPUExecutionProvider"])
    y = np.asarray(session.run(None, {"images": x})[0])
    output = {"name": "output0", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
    answer = infer.Answer("pose", "", "", 1.0, [output], placement=sent.placement)
    printed = infer.as_text(answer, [], infer.found(answer, contract)).rpartition("\n\n")[0]
    assert printed in (POSE / "README.md").read_text()
