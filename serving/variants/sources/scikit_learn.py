"""scikit-learn's classifiers and regressors, saved with ``skops.io.dump``, by skl2onnx.

A ``.skops`` file names the types it holds, and skops makes no object of one that is not trusted by name: its own list,
and those of ``_TRUSTED``, which are scikit-learn's, hold numbers, and are left out there only because their arrays are
not looked at. The ONNX model takes one input ``x`` of 32-bit floats, a column a feature, and has scikit-learn's outputs
without ZipMap. A classifier whose classes are 0, 1, 2, … has its scores first, because they say more than the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import skl2onnx
import sklearn
import skops.io
from skl2onnx.common.data_types import FloatTensorType

from serving.errors import ArtifactRefused
from serving.tensors import Array
from serving.variants.passes import base
from serving.variants.sources import Answers

_TRUSTED = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)
_OPSETS = {"": 17, "ai.onnx.ml": 3}


def convert(path: Path, folder: Path) -> Answers:
    """ArtifactRefused for other types, and for what neither classifies nor regresses."""
    held = skops.io.get_untrusted_types(file=path)
    if unknown := sorted(set(held) - set(_TRUSTED)):
        raise ArtifactRefused(
            f"{path.name} holds {', '.join(unknown)}, and nothing but scikit-learn's own estimators is read; "
            "leave that out, or write ONNX with skl2onnx.to_onnx"
        )
    model = skops.io.load(path, trusted=held)
    classifies = sklearn.base.is_classifier(model)
    if not classifies and not sklearn.base.is_regressor(model):
        raise ArtifactRefused(
            f"{path.name} holds a {type(model).__name__}, which is neither a classifier nor a regressor; "
            "write ONNX with skl2onnx.to_onnx"
        )
    made = skl2onnx.to_onnx(
        model,
        initial_types=[("x", FloatTensorType([None, model.n_features_in_]))],
        options={"zipmap": False} if classifies else None,
        target_opset=_OPSETS,
    )
    outputs = made.graph.output
    scores = next(one.name for one in outputs if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)
    if classifies and np.array_equal(model.classes_, np.arange(len(model.classes_))):
        ordered = sorted(outputs, key=lambda one: one.name != scores)
        del outputs[:]
        outputs.extend(ordered)
    base.write(made, folder / base.FILE)
    methods = ("predict_proba", "decision_function") if classifies else ("predict",)
    answer = next(getattr(model, name) for name in methods if hasattr(model, name))

    def answers(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {scores: answer(inputs["x"])}

    return answers
