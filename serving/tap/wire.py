"""A request and its answer as V2 with binary tensors, from the side of the one who asks.

One form for all: a copy of a V1 or gRPC request asks the same as a V2 request with the same tensors.
"""

from __future__ import annotations

from typing import Any

import orjson

from serving import tensors
from serving.errors import InvalidInput
from serving.protocols import binary, elements, v2
from serving.requests import Request, Response
from serving.tensors import Tensor


def encode(request: Request, answered: Response) -> tuple[bytes, int]:
    """The body that asks ``request`` anew for the outputs that were answered, and the length of its JSON part."""
    inputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for tensor in request.inputs:
        raw = elements.to_bytes(tensor)
        form = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        inputs.append(form | {"parameters": {"binary_data_size": len(raw)}})
        tail.append(raw)
    document = {
        "inputs": inputs,
        "outputs": [{"name": tensor.name} for tensor in answered.outputs],
        "parameters": {**request.parameters, "binary_data_output": True},
    }
    head = orjson.dumps(document | ({"id": request.id} if request.id else {}))
    return b"".join((head, *tail)), len(head)


def decode(body: bytes, header_length: int | None) -> list[Tensor]:
    """The outputs of an answer; raises ``InvalidInput`` where it is none."""
    head, tail = binary.split(body, header_length)
    outputs = v2.parse(head).get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
        raise InvalidInput(f"'outputs' of the answer is {tensors.brief(outputs)}, expected a list of tensors")
    remaining = binary.Reader(tail)
    return [_output(item, remaining) for item in outputs]


def _output(item: dict[str, Any], remaining: binary.Reader) -> Tensor:
    name, datatype = str(item.get("name")), item.get("datatype", "")
    shape = tensors.shape(name, item.get("shape") or ())
    size = v2.parameters_of(item).get("binary_data_size")
    if size is None:
        return Tensor(name, datatype, elements.from_values(name, datatype, shape, item.get("data")))
    return Tensor(name, datatype, elements.from_bytes(name, datatype, shape, remaining.take(name, size)))
