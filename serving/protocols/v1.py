"""The V1 prediction protocol: rows in (``instances``) or columns in (``inputs``), the same form out.

A row of a model with one input is that input's value; of several inputs, an object by input name.
Text travels as a JSON string, bytes as ``{"b64": …}``.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import orjson

from serving import tensors
from serving.errors import InvalidInput
from serving.protocols import elements, v2
from serving.requests import Request, Response
from serving.tensors import Signature, Tensor, TensorSpec

MAX_DEPTH = 32


class Decoded(NamedTuple):
    """A V1 request and whether it came as rows."""

    request: Request
    rows: bool


def decode(body: bytes | bytearray, signature: Signature) -> Decoded:
    """The request in a V1 body, with datatypes from the model's signature and shapes from the values."""
    document = v2.parse(body)
    if ("instances" in document) == ("inputs" in document):
        raise InvalidInput("the request must have either 'instances' (rows) or 'inputs' (columns)")
    rows = "instances" in document
    columns = _columns(document["instances"], signature) if rows else _named(document["inputs"], signature)
    inputs = [_tensor(spec, columns[spec.name]) for spec in signature.inputs]
    return Decoded(Request(id="", inputs=inputs), rows)


def _columns(instances: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise InvalidInput(f"'instances' is {tensors.brief(instances)}, expected a list with at least one row")
    names = [spec.name for spec in signature.inputs]
    if len(names) == 1 and not _by_name(instances[0]):
        return {names[0]: instances}
    for row in instances:
        if not isinstance(row, dict) or set(row) != set(names):
            raise InvalidInput(f"a row is {tensors.brief(row)}, expected an object with {tensors.listed(names)}")
    return {name: [row[name] for row in instances] for name in names}


def _by_name(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _named(inputs: Any, signature: Signature) -> dict[str, Any]:
    names = [spec.name for spec in signature.inputs]
    if len(names) == 1 and not _by_name(inputs):
        return {names[0]: inputs}
    if not isinstance(inputs, dict) or set(inputs) != set(names):
        raise InvalidInput(f"'inputs' is {tensors.brief(inputs)}, expected an object with {tensors.listed(names)}")
    return inputs


def _tensor(spec: TensorSpec, values: Any) -> Tensor:
    if spec.datatype == "BYTES":
        values = _from_base64(spec.name, values)
    shape = []
    inner = values
    while isinstance(inner, list):
        shape.append(len(inner))
        if len(shape) > MAX_DEPTH:
            raise InvalidInput(
                f"tensor '{spec.name}' is nested more than {MAX_DEPTH} lists deep, expected {list(spec.shape)}"
            )
        inner = inner[0] if inner else None
    return Tensor(spec.name, spec.datatype, elements.from_values(spec.name, spec.datatype, tuple(shape), values))


def _from_base64(name: str, value: Any, depth: int = 0) -> Any:
    if isinstance(value, list) and depth < MAX_DEPTH:
        return [_from_base64(name, item, depth + 1) for item in value]
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise InvalidInput(
                f"tensor '{name}' holds {tensors.brief(value)}, expected text or an object {{'b64': base64 text}}"
            ) from error
    return value


def encode(response: Response, rows: bool) -> bytes:
    """The answer's body: ``predictions`` for rows, ``outputs`` for columns."""
    columns = {tensor.name: _nested(tensor) for tensor in response.outputs}
    single = next(iter(columns.values())) if len(columns) == 1 else None
    if not rows:
        return orjson.dumps({"outputs": columns if single is None else single}, option=orjson.OPT_SERIALIZE_NUMPY)
    if single is not None:
        predictions: Any = single
    else:
        lengths = {tensor.array.shape[:1] for tensor in response.outputs}
        if len(lengths) != 1 or lengths == {()}:
            raise InvalidInput("the outputs do not have one row for each instance; ask with 'inputs' instead")
        predictions = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def _nested(tensor: Tensor) -> Any:
    if tensor.datatype in tensors.BINARY_ONLY:
        raise InvalidInput(
            f"output '{tensor.name}' has datatype {tensor.datatype}, which JSON cannot carry; use the V2 protocol"
        )
    if tensor.datatype != "BYTES":
        # ONNX Runtime gives INT64 as C's long long: the same to NumPy, but orjson writes no single value of it.
        array = tensor.array.view(tensors.DTYPES[tensor.datatype])
        return array if array.ndim else array[()]  # orjson writes no array without dimensions
    return _texts(tensor.array.tolist())


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}
