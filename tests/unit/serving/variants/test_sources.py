from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from serving import contract
from serving.engines import artifact
from serving.errors import ArtifactRefused
from serving.tensors import Array
from serving.variants import sources

DIGITS = Path(__file__).parents[4] / "examples" / "digits" / "model.onnx"


@pytest.mark.parametrize(
    ("name", "next_step"),
    [
        ("model.pkl", "save the model with skops.io.dump(model, 'model.skops')"),
        ("model.joblib", "save the model with skops.io.dump(model, 'model.skops')"),
        ("model.pt", "save torch.export.export(model, inputs) with torch.export.save as model.pt2"),
        ("model.pth", "write ONNX with torch.onnx.export"),
        ("last.ckpt", "write ONNX with torch.onnx.export"),
    ],
)
def test_what_is_never_read_is_refused_with_what_to_do_instead(name: str, next_step: str) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        sources.format_of(Path(name))
    assert str(refused.value).startswith(name)
    assert next_step in str(refused.value)


def test_what_the_operator_sends_to_a_build_is_what_a_build_knows() -> None:
    assert all(sources.format_of(Path(f"model{suffix}")) is not None for suffix in contract.IMPORTED)
    for suffix in contract.NEVER_READ:
        with pytest.raises(ArtifactRefused):
            sources.format_of(Path(f"model{suffix}"))


def test_a_file_of_another_kind_is_refused_with_those_that_are_read() -> None:
    with pytest.raises(ArtifactRefused) as refused:
        sources.format_of(Path("notes.md"))
    known = "*.onnx, *.skops, *.pt2"
    assert str(refused.value) == f"notes.md is no model that is read here ({known}); export it as ONNX"


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_what_an_engine_loads_is_left_as_it_is(name: str) -> None:
    assert sources.format_of(Path(name)) is None


def test_answers_as_the_source_gives_them_are_told_by_how_far_they_are() -> None:
    engine = artifact.load(DIGITS)
    inputs = sources.noise(engine.signature)
    assert inputs["image"].shape == (sources.SAMPLES, 1, 32, 32)

    def near(samples: Mapping[str, Array]) -> Mapping[str, Array]:
        (scores,) = engine.infer(samples, ["scores"])
        return {"scores": scores * 1.0005}

    assert sources.compared(near, engine, inputs) == pytest.approx(0.0005, rel=0.01)


@pytest.mark.parametrize(("factor", "said"), [(1.01, r"by 0\.0099 of"), (np.nan, "by nan of")])
def test_answers_that_are_not_the_source_s_are_refused_with_the_figure(factor: float, said: str) -> None:
    engine = artifact.load(DIGITS)

    def far(samples: Mapping[str, Array]) -> Mapping[str, Array]:
        (scores,) = engine.infer(samples, ["scores"])
        return {"scores": scores * np.float32(factor)}

    with pytest.raises(ArtifactRefused, match=said):
        sources.compared(far, engine, sources.noise(engine.signature))
