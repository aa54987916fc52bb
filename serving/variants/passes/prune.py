"""``prune``: weights removed.

``structure: weights`` sets the smallest of each layer to zero. The file compresses better and the model computes as
much as before: ONNX Runtime has no sparse kernels (measured: 3.03 of 3.09 ms at 80 %). The gate says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from serving.variants.passes import base
from serving.variants.recipe import Prune


def make(model: Path, folder: Path, asked: Prune, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """The smallest ``ratio`` of the weights of each convolution and matrix product become zero."""
    found = base.read(model)
    used = {node.input[1] for node in found.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    zeros = weights = 0
    for weight in found.graph.initializer:
        if weight.name not in used:
            continue
        values = numpy_helper.to_array(weight).copy()
        small = np.abs(values) <= np.quantile(np.abs(values), asked.ratio)
        values[small] = 0
        zeros, weights = zeros + int(small.sum()), weights + values.size
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    if not weights:
        raise base.PassRefused("prune: the model has no Conv, Gemm or MatMul with weights; leave prune out")
    base.write(found, folder / base.FILE)
    return {"zeros": round(zeros / weights, 4)}
