"""Traps of what needs the toolchain ``torch``; the others are in ``tests/unit/serving/variants/test_traps.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import ArtifactRefused
from serving.variants import stages
from serving.variants.recipe import Prune
from serving.variants.stages import Limits, Stage

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def test_channels_do_not_go_without_training(tmp_path: Path) -> None:
    """9.7 % of the digits are right after half of the channels went, 99.5 % after training."""
    stage = Stage("prune", Prune(ratio=0.5), {"model": DIGITS / "model.onnx"}, ("digits",), "torch")
    with (
        stages.opened(tmp_path / "stages", Limits(), lambda: None) as found,
        pytest.raises(ArtifactRefused, match=r"channels cannot go without training; name samples in prune\.training"),
    ):
        found.made(stage)
