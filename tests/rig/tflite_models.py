"""Small TFLite models made on the spot, by the schema that LiteRT's own package brings."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

SCALE, ZERO_POINT = 0.5, -3


def relu(
    path: Path, free: bool = True, integers: bool = False, signature: str = "serving_default", operator: str = "RELU"
) -> Path:
    """``y = max(x, 0)`` for x [n, 4] (or [1, 4]); with ``integers`` in int8 of ``SCALE`` and ``ZERO_POINT``."""
    tensors = [_tensor(name, free, integers) for name in ("x", "y")]
    computed = schema.OperatorT()
    computed.inputs, computed.outputs = [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [1], [computed]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, operator)
    code.version = 2 if integers else 1
    told = schema.SignatureDefT()
    told.signatureKey, told.subgraphIndex = signature, 0
    told.inputs, told.outputs = [_named("image", 0)], [_named("scores", 1)]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, model.signatureDefs = [schema.BufferT()], [told]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: str, free: bool, integers: bool) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, [1, 4], 0
    tensor.shapeSignature = [-1 if free else 1, 4]
    tensor.type = schema.TensorType.INT8 if integers else schema.TensorType.FLOAT32
    if integers:
        meaning = schema.QuantizationParametersT()
        meaning.scale, meaning.zeroPoint = [SCALE], [ZERO_POINT]
        tensor.quantization = meaning
    return tensor


def _named(name: str, index: int) -> schema.TensorMapT:
    port = schema.TensorMapT()
    port.name, port.tensorIndex = name, index
    return port
