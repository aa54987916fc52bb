"""``lower`` to LiteRT: ONNX to PyTorch to TFLite, with integers by ai-edge-quantizer where they are asked for.

What is made computes one sample at a time (its converter has no free sizes), under a signature that says so, and takes
and gives tensors of the names that the source has. These are written into the finished file: on the way they would
become source code that is executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import litert_torch
import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer
from ai_edge_quantizer import recipe as recipes

from serving.engines import litert
from serving.variants.passes import base, torch_nets
from serving.variants.recipe import Lower

_GIVEN = "serving_default"
_ALIGNED = 16
"""Bytes to which constants are aligned for vector instructions."""


def make(model: Path, folder: Path, asked: Lower, samples: base.Samples | None, told: base.Told) -> dict[str, Any]:
    """Refused where the model is not one that answers samples one by one."""
    graph = onnx.load(model, load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    for one in (*inputs, *graph.output):
        sizes = one.type.tensor_type.shape.dim
        is_free = bool(sizes) and not sizes[0].dim_value
        if not is_free or (one in inputs and not all(size.dim_value for size in sizes[1:])):
            raise base.PassRefused(
                f"lower: LiteRT takes samples one by one, and the first dimension of {one.name}, and no other, must be "
                "free for that; export the model so"
            )
    shapes = [[1, *(size.dim_value for size in one.type.tensor_type.shape.dim[1:])] for one in inputs]
    kinds = [torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type))).dtype
             for one in inputs]  # fmt: skip
    examples = tuple(torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))
    plain = folder / "plain.tflite"
    litert_torch.convert(torch_nets.read(model), examples).export(str(plain))
    told(0.7)
    made = plain.read_bytes()
    plain.unlink()
    if asked.precision == "int8":
        made = _quantized(made, [one.name for one in inputs], samples)
    target = folder / base.file(asked)
    target.write_bytes(_named(made, [one.name for one in inputs], [one.name for one in graph.output]))
    return {"engine": asked.target, "precision": asked.precision}


def _quantized(made: bytes, names: list[str], samples: base.Samples | None) -> bytes:
    """Weights as integers, and what lies between them where samples say how large that gets."""
    if samples is None:
        return bytes(quantizer.Quantizer(made, recipes.dynamic_wi8_afp32()).quantize().quantized_model)
    work = quantizer.Quantizer(made, recipes.static_wi8_ai8())
    seen = [
        {f"args_{place}": np.ascontiguousarray(batch.inputs[name][row : row + 1]) for place, name in enumerate(names)}
        for batch in samples()
        for row in range(len(batch.inputs[names[0]]))
    ]
    return bytes(work.quantize(work.calibrate({_GIVEN: seen})).quantized_model)


def _named(made: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """The file with a signature that says ``row`` and these names.

    Constants lie behind what describes them and are found by offsets, which are told once it is known how long that is.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(made, 0))
    (signature,) = model.signatureDefs
    signature.signatureKey = litert.ROW
    for ports, kind, names in ((signature.inputs, "args_", inputs), (signature.outputs, "output_", outputs)):
        for port in ports:
            port.name = names[int(port.name.decode().removeprefix(kind))]
    outside = [one for one in model.buffers if one.offset > 1]
    constants = [made[one.offset : one.offset + one.size] for one in outside]
    at = len(_packed(model))
    body = bytearray()
    for buffer, constant in zip(outside, constants, strict=True):
        body += bytes(-(at + len(body)) % _ALIGNED)
        buffer.offset = at + len(body)
        body += constant
    return _packed(model) + bytes(body)


def _packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(2**16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
