import itertools
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from serving import loading
from serving.errors import ArtifactRefused
from serving.settings import Limits, Settings
from tests.rig import onnx_models


def test_a_model_that_never_ends_is_refused_before_anybody_can_ask_it(tmp_path: Path) -> None:
    path = onnx_models.endless(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, Settings(limits=Limits(timeout="200ms")))

    assert str(refused.value) == (
        f"{path} did not end its trial inference within 0.2 s; check the model for an endless loop, "
        "or raise limits.timeout"
    )


def test_a_model_whose_time_depends_on_its_inputs_never_runs_on_the_event_loop(tmp_path: Path) -> None:
    loaded = loading.load(onnx_models.endless(tmp_path / "m.onnx", always=False), Settings())

    assert loaded.inline_elements == 0


@pytest.mark.parametrize(
    ("took_s", "elements"),
    [(1e-6, 32), (12.5e-6, 32), (50e-6, 8), (100e-6, 4), (101e-6, 0), (1.0, 0)],
)
def test_a_quick_model_may_run_on_the_event_loop_for_inputs_not_much_larger_than_those_tried(
    tmp_path: Path, took_s: float, elements: int
) -> None:
    path = tmp_path / "m.identity.json"
    path.write_text('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}')
    readings = itertools.count()

    loaded = loading.load(path, Settings(), clock=lambda: next(readings) * took_s)

    assert loaded.inline_elements == elements


def test_a_model_that_does_not_like_zeros_is_loaded_all_the_same(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("Reshape", ["x", "to"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, ["n"])],
            [onnx_models.value("y", TensorProto.FLOAT, ["a", "b"])],
            [helper.make_tensor("to", TensorProto.INT64, [2], [2, 3])],
        ),
    )

    assert loading.load(path, Settings()).inline_elements == 0


def test_labels_for_an_output_that_there_is_not_are_refused(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")

    with pytest.raises(ArtifactRefused) as refused:
        loading.load(path, Settings(labels={"z": ("a",)}))

    assert (
        str(refused.value) == f"{path} does not fit its settings: labels are given for an output 'z'; the model has 'y'"
    )
