from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.engines import artifact, cpu, onnx_screen, openvino
from serving.engines.base import Interrupt
from serving.errors import ArtifactRefused, InferenceFailed
from serving.settings import Settings
from serving.tensors import DTYPES, Signature, TensorSpec
from tests.rig import onnx_models

DIGITS = Path(__file__).parents[4] / "examples" / "digits"


def test_a_file_of_its_suffix_is_loaded_by_it_and_other_onnx_files_are_not(tmp_path: Path) -> None:
    lowered = artifact.load(onnx_models.linear(tmp_path / "m.openvino.onnx"))
    plain = artifact.load(onnx_models.linear(tmp_path / "m.onnx"))
    assert (lowered.platform, plain.platform) == ("openvino", "onnxruntime_onnx")
    assert lowered.signature == plain.signature


def test_it_answers_as_onnx_runtime_does_on_real_samples(tmp_path: Path) -> None:
    x = np.load(DIGITS / "eval.npz")["x"][:50]
    (tmp_path / "model.openvino.onnx").write_bytes((DIGITS / "model.onnx").read_bytes())
    lowered, plain = artifact.load(tmp_path / "model.openvino.onnx"), artifact.load(DIGITS / "model.onnx")
    (name,), (answer,) = [one.name for one in plain.signature.inputs], [one.name for one in plain.signature.outputs]
    (found,), (wanted,) = lowered.infer({name: x}, [answer]), plain.infer({name: x}, [answer])
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BOOL", "UINT8", "INT8", "INT32", "INT64"])
def test_every_type_comes_back_as_it_went_in_under_its_own_name(tmp_path: Path, kind: str) -> None:
    loaded = openvino.load(onnx_models.echo(tmp_path / "m.openvino.onnx", getattr(TensorProto, kind)))
    (spec,) = loaded.signature.inputs
    x = np.array([0, 1, 1], DTYPES[spec.datatype])
    (y,) = loaded.infer({"x": x}, ["y"])
    assert (spec.name, y.dtype, y.tolist()) == ("x", x.dtype, x.tolist())


def test_an_answer_outlives_the_next_call_and_bytes_of_a_request_can_be_read(tmp_path: Path) -> None:
    loaded = openvino.load(onnx_models.echo(tmp_path / "m.openvino.onnx", TensorProto.FLOAT))
    received = np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32)
    (first,) = loaded.infer({"x": received}, ["y"])
    loaded.infer({"x": np.zeros(3, np.float32)}, ["y"])
    assert first.tolist() == [1, 1, 1]


def test_outputs_come_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["b"])],
        "two",
        [onnx_models.value("x", TensorProto.FLOAT, ["n"])],
        [onnx_models.value(name, TensorProto.FLOAT, ["n"]) for name in ("a", "b")],
    )
    loaded = openvino.load(onnx_models.save(tmp_path / "m.openvino.onnx", graph))
    (b, a) = loaded.infer({"x": np.ones(1, np.float32)}, ["b", "a"])
    assert (a.tolist(), b.tolist()) == ([-1], [1])


def test_a_call_that_was_interrupted_fails_and_the_next_one_does_not(tmp_path: Path) -> None:
    loaded = openvino.load(onnx_models.deaf(tmp_path / "m.openvino.onnx"))
    fired = Interrupt()
    fired.fire()
    with pytest.raises(InferenceFailed, match="canceled"):
        loaded.infer({"n": np.array([100_000])}, ["y"], fired)
    assert loaded.infer({"n": np.array([10])}, ["y"], Interrupt())[0].tolist() == [10]


def test_values_it_cannot_compute_with_fail_in_its_words(tmp_path: Path) -> None:
    loaded = openvino.load(onnx_models.deaf(tmp_path / "m.openvino.onnx"))
    with pytest.raises(InferenceFailed, match=r"the model failed: \[CPU\] Broadcast node .* Value -10 not in range"):
        loaded.infer({"n": np.array([-10])}, ["y"])


def test_a_loop_is_refused_unread_because_nothing_would_end_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"has a loop, which OpenVINO may run without an end; leave it to ONNX"):
        openvino.load(onnx_models.endless(tmp_path / "m.openvino.onnx"))


def test_what_onnx_runtime_may_not_read_it_may_not_either(tmp_path: Path) -> None:
    model = onnx.load(onnx_models.linear(tmp_path / "m.openvino.onnx"))
    onnx.save(model, tmp_path / "m.openvino.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").rename(tmp_path / "other")
    (tmp_path / "w.data").hardlink_to(tmp_path / "other")
    with pytest.raises(ArtifactRefused, match="which is a hard link"):
        openvino.load(tmp_path / "m.openvino.onnx")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("NoSuchOperator", r"no model that OpenVINO can load .*NoSuchOperator.*; leave it to ONNX Runtime"),
        ("Identity", r"has 'x' of type string, which the engine for OpenVINO does not take; leave it to ONNX Runtime"),
    ],
)
def test_what_it_cannot_compute_is_refused_with_the_next_step(tmp_path: Path, model: str, why: str) -> None:
    kind = TensorProto.STRING if model == "Identity" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(model, ["x"], ["y"])],
        "g",
        [onnx_models.value("x", kind, ["n"])],
        [onnx_models.value("y", kind, ["n"])],
    )
    with pytest.raises(ArtifactRefused, match=why):
        openvino.load(onnx_models.save(tmp_path / "m.openvino.onnx", graph))


def said(path: Path, precision: str) -> Path:
    """A linear model that says what it computes in."""
    model = onnx.load(onnx_models.linear(path))
    model.metadata_props.add(key=onnx_screen.PRECISION, value=precision)
    onnx.save(model, path)
    return path


def test_what_it_computes_in_stands_in_the_file_and_is_32_bits_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "computes_bf16", lambda: True)  # a CPU that does not, imitates it
    x = np.full((1, 4), 1.001953125, np.float32)  # bfloat16 has no such number
    plain = openvino.load(onnx_models.linear(tmp_path / "m.openvino.onnx"), Settings(threads=1))
    half = openvino.load(said(tmp_path / "half.openvino.onnx", "bf16"), Settings(threads=1))
    wanted = x @ onnx_models.WEIGHTS
    assert np.allclose(plain.infer({"x": x}, ["y"])[0], wanted, rtol=1e-6)
    (found,) = half.infer({"x": x}, ["y"])
    assert half.signature == Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),))
    assert 1e-4 < float(np.abs(found / wanted - 1).max()) < 2e-2


def test_bf16_is_refused_where_the_cpu_cannot_compute_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "computes_bf16", lambda: False)
    path = said(tmp_path / "m.openvino.onnx", "bf16")
    with pytest.raises(ArtifactRefused) as refused:
        openvino.load(path)
    assert str(refused.value) == (
        f"{path} computes in bf16, which this CPU cannot (it has neither avx512_bf16 nor amx_bf16); "
        "lower it with precision fp32, or serve it on a node that can"
    )


def test_a_precision_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"says penstock\.precision int3, expected fp32 or bf16; lower it again"):
        openvino.load(said(tmp_path / "m.openvino.onnx", "int3"))
