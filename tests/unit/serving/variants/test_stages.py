"""What a stage may cost: real processes, given what is made to hurt."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from serving.errors import ArtifactRefused
from serving.variants import stages
from serving.variants.stages import Limits, Stage, StageFailed
from tests.rig import onnx_models

LIMITS = Limits(memory_bytes=2**30, time_s=120.0, trial_s=2.0)


def made(folder: Path, model: Path, limits: Limits = LIMITS, toolchain: str = "") -> stages.Made:
    with stages.opened(folder / "stages", limits, lambda: None) as found:
        return found.made(Stage("check", {}, {"model": model}, (model.parent.name,), toolchain))


def refusal(folder: Path, model: Path) -> str:
    """Why loading the model is refused; nothing of it stays, and it took no more memory than it may."""
    made(folder, onnx_models.linear(folder / "good" / "model.onnx"))
    (before,) = (folder / "stages").iterdir()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    with pytest.raises(ArtifactRefused) as refused:
        made(folder, model)
    assert list((folder / "stages").iterdir()) == [before]
    # Other tests of this process may have had larger children.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 <= max(LIMITS.memory_bytes, largest)
    return str(refused.value).replace(str(folder), "")


def weights(path: Path, weight: TensorProto) -> Path:
    """``y = x @ weight``."""
    return onnx_models.save(
        path,
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "weights",
            [onnx_models.value("x", TensorProto.FLOAT, ["n", 4])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n", "m"])],
            [weight],
        ),
    )


def external(path: Path, location: str) -> Path:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    return weights(path, weight)


def external_outside(path: Path) -> Path:
    return external(path, "../../../etc/passwd")


def external_hard_link(path: Path) -> Path:
    path.parent.mkdir()
    secret = path.parent.parent / "secret"
    secret.write_bytes(bytes(48))
    os.link(secret, path.parent / "w.bin")
    return external(path, "w.bin")


def weight_of_2_to_the_40_elements(path: Path) -> Path:
    return weights(path, TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 2**38], raw_data=bytes(48)))


def output_of_2_to_the_40_elements(path: Path) -> Path:
    return onnx_models.save(
        path,
        helper.make_graph(
            [
                helper.make_node("ConstantOfShape", ["n"], ["many"]),
                helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
                helper.make_node("Add", ["x", "sum"], ["y"]),
            ],
            "large",
            [onnx_models.value("x", TensorProto.FLOAT, ["n"])],
            [onnx_models.value("y", TensorProto.FLOAT, ["n"])],
            [helper.make_tensor("n", TensorProto.INT64, [1], [2**40])],
        ),
    )


def input_of_2_to_the_40_elements(path: Path) -> Path:
    large = [onnx_models.value(name, TensorProto.FLOAT, ["n", 2**20, 2**20]) for name in ("x", "y")]
    return onnx_models.save(
        path, helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "large", large[:1], large[1:])
    )


def cut_in_half(path: Path) -> Path:
    content = onnx_models.linear(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def nested_ten_thousand_deep(path: Path) -> Path:
    """Graphs in attributes of nodes of graphs: a parser's stack."""
    content = b""
    for _ in range(10_000):
        for field in (6, 5, 1):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = bytes([field << 3 | 2]) + _varint(len(content)) + content
    path.parent.mkdir()
    path.write_bytes(b"\x3a" + _varint(len(content)) + content)
    return path


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (external_outside, "keeps tensors in '../../../etc/passwd', which is outside the model's folder"),
        (external_hard_link, "keeps tensors in 'w.bin', which is a hard link (the file has 2 names)"),
        (weight_of_2_to_the_40_elements, "is no model that ONNX Runtime can load"),
        (output_of_2_to_the_40_elements, "buffer of size 4398046511104; a step may have 1024 MiB of memory"),
        (input_of_2_to_the_40_elements, "loading needs more than the 1024 MiB of memory a step may have"),
        (onnx_models.endless, "the model gave no answer to zeros within 2 s; look for an endless loop in it"),
        (cut_in_half, "is no whole ONNX model (it is cut off"),
        (nested_ten_thousand_deep, "is no whole ONNX model (messages nested more than 100 deep"),
    ],
)
def test_a_hostile_source_is_refused_in_words_and_costs_no_more_than_its_limits(
    tmp_path: Path, hostile: Callable[[Path], Path], why: str
) -> None:
    assert why in refusal(tmp_path, hostile(tmp_path / "hostile" / "model.onnx"))


def test_what_was_refused_is_not_tried_again_in_the_same_build(tmp_path: Path) -> None:
    model = cut_in_half(tmp_path / "hostile" / "model.onnx")
    with stages.opened(tmp_path / "stages", LIMITS, lambda: None) as found:
        stage = Stage("check", {}, {"model": model}, ("model",))
        with pytest.raises(ArtifactRefused) as first:
            found.made(stage)
        onnx_models.linear(model)
        with pytest.raises(ArtifactRefused) as second:
            found.made(stage)
    assert str(second.value) == str(first.value)


def standing_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """The interpreter of a toolchain that does something else."""
    interpreter = folder / "python"
    interpreter.write_text(f"#!/bin/sh\n{script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PENSTOCK_TOOLCHAIN_TORCH", str(interpreter))


def test_a_stage_that_never_falls_silent_ends_at_its_time_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in(monkeypatch, tmp_path, "exec yes >&2")
    model = onnx_models.linear(tmp_path / "model" / "model.onnx")
    with pytest.raises(ArtifactRefused, match="loading took longer than 1 s and was stopped"):
        made(tmp_path, model, Limits(time_s=1.0), "torch")


@pytest.mark.parametrize(
    ("signal", "why"),
    [
        ("KILL", "loading was killed; if memory is short, give it more"),
        ("ABRT", "loading was ended by SIGABRT: a library broke, or could not have more than the 1024 MiB of memory"),
    ],
)
def test_a_stage_ended_by_a_signal_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal: str, why: str
) -> None:
    standing_in(monkeypatch, tmp_path, f"kill -{signal} $$")
    model = onnx_models.linear(tmp_path / "model" / "model.onnx")
    with pytest.raises(StageFailed) as failed:
        made(tmp_path, model, LIMITS, "torch")
    assert why in str(failed.value)


def test_a_stage_that_tells_what_nobody_asked_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in(monkeypatch, tmp_path, "echo no json")
    model = onnx_models.linear(tmp_path / "model" / "model.onnx")
    with pytest.raises(StageFailed, match="loading told what it should not"):
        made(tmp_path, model, LIMITS, "torch")


def test_an_operator_that_hears_nobody_is_stopped_all_the_same(tmp_path: Path) -> None:
    """ONNX Runtime looks up between nodes only; this one would take hours."""
    boxes = [
        helper.make_tensor(name, TensorProto.INT64, [3], [1, n, m]) for name, n, m in (("b", 9**6, 4), ("s", 1, 9**6))
    ]
    model = onnx_models.save(
        tmp_path / "deaf" / "model.onnx",
        helper.make_graph(
            [
                helper.make_node("ConstantOfShape", ["b"], ["boxes"]),
                helper.make_node("ConstantOfShape", ["s"], ["scores"]),
                helper.make_node("Add", ["scores", "x"], ["scored"]),
                helper.make_node("NonMaxSuppression", ["boxes", "scored", "most"], ["y"]),
            ],
            "deaf",
            [onnx_models.value("x", TensorProto.FLOAT, [1])],
            [onnx_models.value("y", TensorProto.INT64, ["n", 3])],
            [*boxes, helper.make_tensor("most", TensorProto.INT64, [1], [9**6])],
        ),
    )
    assert "the model gave no answer to zeros within 2 s" in refusal(tmp_path, model)
