"""Triton's generate extension: a flat JSON object whose keys are inputs, answered by one whose keys are outputs.

``generate`` has room for one response, ``generate_stream`` for any number: each is a server-sent event. A shape is
not sent; it follows from the number of values: a dimension of unknown size is that number divided by the known ones,
and where there are several, the others are 1 (the last of them has the values).
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from serving import tensors
from serving.errors import InvalidInput, ServingError
from serving.protocols import elements, options, v2
from serving.requests import Request, Response
from serving.tensors import Signature, Tensor, TensorSpec

STREAM_TYPE = b"text/event-stream; charset=utf-8"
_MAX_DEPTH = 32


def decode(body: bytes | bytearray, signature: Signature) -> Request:
    """The request in a body: what is no input of the model is a parameter, and inputs may be among the parameters."""
    document = v2.parse(body)
    values = {**v2.parameters_of(document), **document}
    values.pop("parameters", None)
    identity = values.pop("id", None) if all(spec.name != "id" for spec in signature.inputs) else None
    if identity is not None and not isinstance(identity, str):
        raise InvalidInput(f"'id' is {tensors.brief(identity)}, expected text")
    given = list(values)
    inputs = [_tensor(spec, values.pop(spec.name)) for spec in signature.inputs if spec.name in values]
    if len(inputs) != len(signature.inputs):
        missing = next(spec.name for spec in signature.inputs if spec.name not in given)
        raise InvalidInput(
            f"input '{missing}' is missing; given: {tensors.listed(given)}, "
            f"expected: {tensors.listed(spec.name for spec in signature.inputs)}"
        )
    return Request(identity or "", inputs, (), False, values, *options.schedule(values))


def _tensor(spec: TensorSpec, value: Any) -> Tensor:
    given = _count(spec.name, value)
    known = math.prod(size for size in spec.shape if size != -1)
    shape = list(spec.shape)
    unknown = [place for place, size in enumerate(shape) if size == -1]
    for place in unknown:
        shape[place] = 1
    if unknown:
        shape[unknown[-1]] = given // known if known else 0
    dimensions = tuple(shape)
    return Tensor(spec.name, spec.datatype, elements.from_values(spec.name, spec.datatype, dimensions, value))


def _count(name: str, value: Any, depth: int = 0) -> int:
    if not isinstance(value, list):
        return 1
    if depth == _MAX_DEPTH:
        raise InvalidInput(f"tensor '{name}' is nested more than {_MAX_DEPTH} lists deep")
    return sum(_count(name, item, depth + 1) if isinstance(item, list) else 1 for item in value)


def encode(response: Response) -> bytes:
    """A response as a JSON object; an output with one element is that value, any other a flat list."""
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        document["id"] = response.id
    for tensor in response.outputs:
        values = elements.to_values(tensor)
        document[tensor.name] = values[0] if len(values) == 1 else values
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def event(document: bytes) -> bytes:
    """A JSON document as a server-sent event."""
    return b"data: %b\n\n" % document


def failure(error: ServingError) -> bytes:
    """The event that ends a stream which failed after its first response."""
    return event(orjson.dumps({"error": str(error)}))
