"""What a build proves of a detector is what ``penstock infer`` shows of it: one contract, read once, for both.

The model is made by hand: [n, 3, 640, 640] become [n, 56, 8400] as of YOLOv8-pose, with figures at known places, as
sure as the brightest point of the input says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from operators.api.contract import Contract
from operators.cli import drawing, infer
from operators.cli.infer import BadInput, Found
from serving.engines import artifact
from serving.translation import pictures
from serving.variants import datasets, evaluation, metrics
from tests.rig import model_server, onnx_models

PLACES = 80 * 80 + 40 * 40 + 20 * 20
SAID = {
    "input": {"image": {"size": [640, 640], "fit": "letterbox", "scale": 1 / 255}},
    "output": {"labels": ["person"], "detections": {"joints": 17}},
}
CONTRACT = Contract.model_validate(SAID).to_dict()
"""As it stands in the status of a revision, and in the document of a build."""
SIZE = (1280, 960)
"""Of the picture: half as large in the input, with 80 rows above and below."""
BOXES = np.array([[100, 120, 200, 400], [400, 200, 600, 560]], np.float32)
"""Corners in the input."""


def joints(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Seventeen on a line down the middle of the box, the last one hidden."""
    made = np.ones((17, 3), np.float32)
    made[:, 0] = (box[0] + box[2]) / 2
    made[:, 1] = np.linspace(box[1], box[3], 17)
    made[16, 2] = 0.1
    return made


KEYPOINTS = np.stack([joints(box) for box in BOXES])


def detector(path: Path) -> Path:
    answer = np.zeros((1, 56, PLACES), np.float32)
    sure = np.zeros((1, 56, PLACES), np.float32)
    for place, box, score in ((7000, 0, 0.9), (7001, 0, 0.8), (8100, 1, 0.6), (4000, 1, 0.1)):
        left, top, right, bottom = BOXES[box]
        # The second covers the first nearly, and the last is too unsure to be shown.
        answer[0, :4, place] = (left + right) / 2, (top + bottom) / 2 + (place == 7001) * 8, right - left, bottom - top
        answer[0, 5:, place] = KEYPOINTS[box].ravel()
        sure[0, 4, place] = score
    constants = [numpy_helper.from_array(answer, "answer"), numpy_helper.from_array(sure, "sure")]
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["brightest"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["brightest", "flat"], ["light"]),
        helper.make_node("Mul", ["sure", "light"], ["scores"]),
        helper.make_node("Add", ["answer", "scores"], ["output0"]),
    ]
    constants.append(numpy_helper.from_array(np.array([-1, 1, 1]), "flat"))
    inputs, outputs = (
        [onnx_models.value(name, TensorProto.FLOAT, ["n", *shape])]
        for name, shape in (("images", [3, 640, 640]), ("output0", [56, PLACES]))
    )
    return onnx_models.save(path, helper.make_graph(nodes, "detector", inputs, outputs, constants))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pose")
    detector(made / "pose.onnx")
    Image.new("RGB", SIZE, (255, 255, 255)).save(made / "people.png")
    return made


def asked(folder: Path, contract: dict[str, Any] = CONTRACT) -> infer.Answer:
    with model_server.running("serve", str(folder / "pose.onnx")) as server:
        url = f"http://{server.authority}/v2/models/pose"
        return infer.ask(url, "pose", contract, folder / "people.png", 60.0)


def test_figures_are_shown_where_they_are_in_the_picture_and_counted_as_right_by_the_metric(folder: Path) -> None:
    there = infer.found(asked(folder), CONTRACT)
    assert there is not None
    assert [(one.label, one.box) for one in there] == [
        ("person", (200.0, 80.0, 400.0, 640.0)),
        ("person", (800.0, 240.0, 1200.0, 960.0)),
    ]
    assert [one.score for one in there] == pytest.approx([0.9, 0.6], abs=1e-3)
    assert there[0].joints[0] == (300.0, 80.0, 1.0)
    assert there[1].joints[16] == (1000.0, 960.0, 0.1)

    wanted = pictures.Wanted.of(CONTRACT)
    assert wanted is not None
    x, _ = pictures.opened(folder / "people.png", wanted)
    np.savez(folder / "eval.npz", x=x[None], boxes=BOXES[None], keypoints=KEYPOINTS[None])
    engine = artifact.load(folder / "pose.onnx")
    dataset = datasets.opened(folder / "eval.npz", engine.signature, CONTRACT)
    for name in ("ap-oks", "ap-iou"):
        metric = metrics.named(name, CONTRACT)
        rows = evaluation.outcome(engine, dataset, metric, None, lambda share: None).rows
        # Two figures; found are the surest of each pair that cover each other, and nothing below 0.01.
        assert rows[0, :1].tolist() == [2.0]
        assert rows[0, 1::3][:2].tolist() == pytest.approx([one.score for one in there], abs=1e-3)
        assert metric.value(rows) == pytest.approx(1.0)


def test_boxes_alone_are_read_by_the_same_code(tmp_path: Path) -> None:
    data = np.zeros((1, 84, PLACES), np.float32)
    data[0, :4, 17], data[0, 4 + 16, 17] = (320, 240, 100, 50), 0.75
    output = {"name": "output0", "datatype": "FP32", "shape": [1, 84, PLACES], "data": data.ravel().tolist()}
    contract = Contract.model_validate({"output": {"detections": {}}}).to_dict()
    reply = infer.Answer("boxes", "", "", 1.0, [output])
    assert infer.found(reply, contract) == [Found("16", 0.75, (270.0, 215.0, 370.0, 265.0), ())]


def test_an_answer_is_a_line_for_each_figure_and_data_without_the_tensor(folder: Path) -> None:
    there = [Found("person", 0.9, (200.0, 80.0, 400.0, 640.0), ((300.0, 80.0, 1.0), (310.0, 90.0, 0.2)))]
    output = {"name": "output0", "datatype": "FP32", "shape": [1, 56, 3], "data": [0.0] * 168}
    reply = infer.Answer("pose", "1a2b3c4d", "int8", 3.21, [output])
    assert infer.as_text(reply, [], there) == (
        "pose: 1 found\n\n  person   90.0%  200,80 to 400,640\n    300,80 -\n\nrevision 1a2b3c4d (int8), 3.2 ms\n"
    )
    told = infer.as_data(reply, [], there)
    assert told["outputs"] == [{"name": "output0", "datatype": "FP32", "shape": [1, 56, 3]}]
    assert told["detections"] == [
        {"label": "person", "score": 0.9, "box": there[0].box, "joints": there[0].joints},
    ]


def test_figures_are_drawn_onto_the_picture(folder: Path) -> None:
    there = [Found("person", 0.9, (200.0, 80.0, 400.0, 640.0), tuple((300.0, 100.0 + 30 * n, 1.0) for n in range(17)))]
    drawing.draw(folder / "people.png", there, folder / "drawn.png")
    with Image.open(folder / "drawn.png") as drawn:
        assert drawn.size == SIZE
        changed = (np.asarray(drawn) != 255).any(axis=2)
    assert changed[80:84, 200:401].all()
    assert changed[300, 300]
    assert not changed[700:].any()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            {"detections": {"joints": 20}},
            "does not fit spec.contract.output.detections: the output has shape [1, 56, 3]",
        ),
        ({"detections": {"joints": 17}, "labels": ["a", "b"]}, "has 2 names, output 'output0' tells 1 classes apart"),
    ],
)
def test_an_output_that_is_not_what_the_contract_says_is_refused_in_words(output: dict[str, Any], words: str) -> None:
    told = {"name": "output0", "datatype": "FP32", "shape": [1, 56, 3], "data": [0.0] * 168}
    with pytest.raises(BadInput) as refused:
        infer.found(infer.Answer("pose", "", "", 1.0, [told]), {"output": output})
    assert words in str(refused.value)
