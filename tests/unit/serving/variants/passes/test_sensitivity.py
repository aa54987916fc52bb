from __future__ import annotations

from pathlib import Path

import pytest

from serving.engines import artifact
from serving.variants import datasets
from serving.variants.passes import quantize
from serving.variants.recipe import Quantize

DIGITS = Path(__file__).parents[5] / "examples" / "digits"


def test_a_net_that_takes_eight_bits_well_has_them_everywhere(tmp_path: Path) -> None:
    model = DIGITS / "model.onnx"
    dataset = datasets.opened(DIGITS / "calibration.npz", artifact.load(model).signature, {})
    shares: list[float] = []
    facts = quantize.make(model, tmp_path, Quantize(exclude="sensitive"), lambda: dataset.batches(8), shares.append)
    assert facts["excluded"] == []
    assert facts["sqnrDb"] > 40
    assert {"Conv", "Gemm", "Softmax"} <= {one["operator"] for one in facts["sensitivity"]}
    told = [one["sqnrDb"] for one in facts["sensitivity"]]
    assert told == sorted(told)
    assert min(told) >= facts["sqnrDb"]
    assert shares == pytest.approx([(number + 1) / len(told) for number in range(len(told))])
