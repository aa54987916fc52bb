"""``cast``: 16-bit floats inside, the model's own types outside.

ONNX Runtime's CPU provider computes neither: it casts to 32 bits and back, so this gains nothing there but the size of
the file (measured: 1.00x); a GPU or an accelerator gains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from serving.variants.passes import base
from serving.variants.recipe import Cast

_LARGEST = float(np.finfo(np.float16).max)


def make(model: Path, folder: Path, asked: Cast, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """Refused where a weight does not fit into the type."""
    if asked.to == "bf16":
        raise base.PassRefused(
            "cast: ONNX Runtime has no bfloat16 kernels on a CPU; lower to openvino with precision bf16 instead"
        )
    from onnxruntime.transformers.float16 import convert_float_to_float16

    before = base.read(model)
    large = [one.name for one in before.graph.initializer if _overflows(one)]
    if large:
        raise base.PassRefused(
            f"cast: weight {large[0]} has values beyond {_LARGEST:.0f}, which fp16 cannot hold; keep fp32"
        )
    base.write(convert_float_to_float16(before, keep_io_types=True, disable_shape_infer=True), folder / base.FILE)
    return {}


def _overflows(weight: onnx.TensorProto) -> bool:
    if weight.data_type != onnx.TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(weight)
    return bool(values.size and np.abs(values).max() > _LARGEST)
