import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from serving import settings
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused
from serving.models import loading, warming
from serving.settings import Settings, WarmUp
from serving.tensors import Array, Signature, TensorSpec
from tests.rig import onnx_models


class Recorder:
    """An engine of this test that writes down what it is asked."""

    platform = "recorder"
    may_loop = False
    may_block = False
    problem = ""
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))), (TensorSpec("y", "FP32", (-1, 2)),)
    )

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, tuple[int, ...]], list[str]]] = []

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], interrupt: Interrupt | None = None
    ) -> list[Array]:
        self.asked.append(({name: array.shape for name, array in inputs.items()}, list(outputs)))
        return [np.zeros((1, 2), np.float32)]

    def close(self) -> None:
        """Nothing is held."""


def said(*warm_ups: object) -> Settings:
    return settings.of(Path("/nowhere/m.onnx"), {"warmUp": list(warm_ups)})


def test_zeros_of_the_shapes_or_batch_sizes_said_are_run_as_often_as_said_and_in_order() -> None:
    engine = Recorder()

    warming.run(
        engine, Path("m.onnx"), said({"batchSizes": [1, 8], "count": 2}, {"shapes": {"x": [3, 2]}}, {"batchSizes": [4]})
    )

    assert engine.asked == [
        ({"x": (1, 2), "t": (1,)}, ["y"]),
        ({"x": (1, 2), "t": (1,)}, ["y"]),
        ({"x": (8, 2), "t": (8,)}, ["y"]),
        ({"x": (8, 2), "t": (8,)}, ["y"]),
        ({"x": (3, 2), "t": (1,)}, ["y"]),
        ({"x": (4, 2), "t": (4,)}, ["y"]),
    ]


def test_a_request_beside_the_model_is_run_as_it_is(tmp_path: Path) -> None:
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
        {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
    ]
    (tmp_path / "warm.json").write_text(json.dumps({"inputs": inputs, "outputs": [{"name": "y"}]}))
    engine = Recorder()

    warming.run(engine, tmp_path / "m.onnx", said({"file": "warm.json", "count": 3}))

    assert engine.asked == [({"x": (1, 2), "t": (2,)}, ["y"])] * 3


@pytest.mark.parametrize(
    ("warm_up", "why"),
    [
        ({"file": "absent.json"}, "absent.json: {folder}/absent.json cannot be read (No such file or directory)"),
        (
            {"file": "../m.onnx"},
            "../m.onnx: {folder}/../m.onnx is no file that can be taken; expected a regular one beside the model, "
            "of at most 67108864 bytes",
        ),
        (
            {"file": "link.json"},
            "link.json: {folder}/link.json is no file that can be taken; expected a regular one beside the model, "
            "of at most 67108864 bytes",
        ),
        (
            {"shapes": {"x": [2, 5]}},
            "shapes {{'x': (2, 5)}}: input 'x' of model 'm.onnx' has shape [2, 5], expected [-1, 4]",
        ),
        ({"shapes": {"q": [2]}}, "shapes {{'q': (2,)}}: model 'm.onnx' has no input 'q'; expected: 'x'"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_be_warmed_up_with_refuses_it(tmp_path: Path, warm_up: object, why: str) -> None:
    folder = tmp_path / "m"
    path = onnx_models.linear(folder / "m.onnx")
    onnx_models.linear(tmp_path / "m.onnx")
    (folder / "link.json").symlink_to(path)

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, said(warm_up))

    assert str(refused.value) == f"{path} cannot be warmed up with {why.format(folder=folder)}"


def test_a_model_with_a_fixed_number_of_rows_has_no_batch_sizes(tmp_path: Path) -> None:
    path = onnx_models.bomb(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, said({"batchSizes": [1, 2]}))

    assert (
        str(refused.value) == f"{path} cannot be warmed up with batchSizes [1, 2]: input 'n' has a fixed number of rows"
    )


def test_a_warm_up_that_never_ends_refuses_the_model(tmp_path: Path) -> None:
    path = onnx_models.endless(tmp_path / "m.onnx", always=False)
    go = [{"name": "go", "datatype": "BOOL", "shape": [], "data": [True]}]
    (tmp_path / "warm.json").write_text(json.dumps({"inputs": go}))
    (tmp_path / "penstock.json").write_text('{"limits": {"timeout": "200ms"}, "warmUp": [{"file": "warm.json"}]}')

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, settings.of(path, {}))

    assert str(refused.value) == (
        f"{path} cannot be warmed up with warm.json: it did not answer within 0.2 s (limits.timeout)"
    )


def test_a_warm_up_is_one_thing() -> None:
    for wrong in ({}, {"file": "a", "batchSizes": [1]}, {"count": 0, "file": "a"}, {"batchSizes": [0]}):
        with pytest.raises(ValueError, match=r"warm-up needs one of file|Expected `int`"):
            said(wrong)
    assert said({"file": "a"}) == Settings(warm_up=(WarmUp(file="a"),))


def test_zeros_have_one_element_where_any_number_may_be() -> None:
    assert warming.zeros(TensorSpec("x", "INT8", (-1, 3))).tolist() == [[0, 0, 0]]
    assert warming.zeros(TensorSpec("x", "BYTES", (-1,))).tolist() == [b""]
