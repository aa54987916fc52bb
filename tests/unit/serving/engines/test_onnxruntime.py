from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from serving.engines import onnxruntime as engine
from serving.errors import ArtifactRefused, InvalidInput
from serving.tensors import Signature, TensorSpec
from tests.rig import onnx_models


def test_the_signature_is_the_models_with_free_sizes_as_minus_one(tmp_path: Path) -> None:
    loaded = engine.load(onnx_models.linear(tmp_path / "m.onnx"))

    assert loaded.signature == Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))


def test_the_answer_is_that_of_onnx_runtime_called_directly(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "m.onnx")
    x = np.random.default_rng(7).normal(size=(5, 4)).astype(np.float32)

    (y,) = engine.load(path).infer({"x": x}, ["y"])

    (direct,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.array_equal(y, direct)


def test_text_goes_in_and_out_as_bytes(tmp_path: Path) -> None:
    loaded = engine.load(onnx_models.echo(tmp_path / "m.onnx", TensorProto.STRING))

    (y,) = loaded.infer({"x": np.array([b"sieben", "七".encode()], np.object_)}, ["y"])

    assert y.tolist() == [b"sieben", "七".encode()]


def test_bytes_that_are_no_text_are_the_clients_fault(tmp_path: Path) -> None:
    loaded = engine.load(onnx_models.echo(tmp_path / "m.onnx", TensorProto.STRING))

    with pytest.raises(InvalidInput) as refused:
        loaded.infer({"x": np.array([b"\xff"], np.object_)}, ["y"])

    assert str(refused.value) == "input 'x' holds bytes that are no UTF-8 text, which ONNX strings must be"


def added(path: Path) -> Path:
    """A model with ``y`` = x + transposed x and ``z`` = x @ w; x is [n, n], w [n, m]."""
    return onnx_models.save(
        path,
        helper.make_graph(
            [
                helper.make_node("Transpose", ["x"], ["t"]),
                helper.make_node("Add", ["x", "t"], ["y"]),
                helper.make_node("MatMul", ["x", "w"], ["z"]),
            ],
            "g",
            [
                onnx_models.value("x", TensorProto.FLOAT, ["n", "n"]),
                onnx_models.value("w", TensorProto.FLOAT, ["n", "m"]),
            ],
            [
                onnx_models.value("y", TensorProto.FLOAT, ["n", "n"]),
                onnx_models.value("z", TensorProto.FLOAT, ["n", "m"]),
            ],
        ),
    )


@pytest.mark.parametrize(
    ("x", "w", "message"),
    [
        (
            (3, 4),
            (4, 2),
            "input 'x' has shape [3, 4], expected 3 instead of 4 in dimension 1: the model says that this and "
            "dimension 0 of 'x' have one size, 'n'",
        ),
        (
            (3, 3),
            (4, 2),
            "input 'w' has shape [4, 2], expected 3 instead of 4 in dimension 0: the model says that this and "
            "dimension 0 of 'x' have one size, 'n'",
        ),
    ],
)
def test_sizes_that_the_model_calls_by_one_name_and_differ_are_the_clients_fault(
    tmp_path: Path, x: tuple[int, ...], w: tuple[int, ...], message: str
) -> None:
    loaded = engine.load(added(tmp_path / "m.onnx"))

    with pytest.raises(InvalidInput) as refused:
        loaded.infer({"x": np.ones(x, np.float32), "w": np.ones(w, np.float32)}, ["y", "z"])

    assert str(refused.value) == message


def test_a_model_that_onnx_runtime_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    path = onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("NoSuchOperator", ["x"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, [1])],
            [onnx_models.value("y", TensorProto.FLOAT, [1])],
        ),
    )

    with pytest.raises(ArtifactRefused, match=r"NoSuchOperator.*check how it was exported"):
        engine.load(path)


def test_a_model_whose_answers_are_no_tensors_is_refused_with_the_next_step(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    path = onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("SequenceConstruct", ["x"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, [1])],
            [sequence],
        ),
    )

    with pytest.raises(ArtifactRefused) as refused:
        engine.load(path)

    assert str(refused.value) == (
        f"{path} has 'y' of type seq(tensor(float)), which V2 clients cannot send or read; "
        "export the model with plain tensors (for scikit-learn: without ZipMap)"
    )


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype="<f4").tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    path = onnx_models.save(
        tmp_path / "m.onnx",
        helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [onnx_models.value("x", TensorProto.FLOAT, [4])],
            [onnx_models.value("y", TensorProto.FLOAT, [4])],
            [tensor],
        ),
    )

    (y,) = engine.load(path).infer({"x": np.ones(4, np.float32)}, ["y"])

    assert y.tolist() == [1, 2, 3, 4]
