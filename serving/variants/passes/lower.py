"""``lower``: for one engine other than ONNX Runtime.

OpenVINO and TensorRT read ONNX as it is, QuantizeLinear included, so what they are given is the same graph under a name
by which the server knows the engine (``model.openvino.onnx``). What they shall compute in stands in its metadata, so
that two forms which differ in nothing else have digests of their own. Whether this machine can, its engine says when it
loads the file, as after every pass. LiteRT has a format of its own: ``lower_litert``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.engines import onnx_screen
from serving.variants.passes import base
from serving.variants.recipe import Lower


def make(model: Path, folder: Path, asked: Lower, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """The same graph, for another engine."""
    found = base.read(model)
    found.metadata_props.add(key=onnx_screen.PRECISION, value=asked.precision)
    base.write(found, folder / base.file(asked))
    return {"engine": asked.target, "precision": asked.precision}
