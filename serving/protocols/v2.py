"""Open Inference Protocol V2 over REST: JSON, with tensors beside it as raw bytes (``binary``).

Unknown keys are never refused. NaN and infinity have no JSON form: an answer shows them as null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from serving import tensors
from serving.errors import InvalidInput
from serving.protocols import binary, elements, large, options
from serving.requests import Request, Response, Wanted
from serving.tensors import Tensor

_COUNTED_BYTES = 2**20
_MAX_LISTS = 2**19
_MAX_TEXTS = 2**20
_GZIP = b"\x1f\x8b"
_JSON = orjson.OPT_SERIALIZE_NUMPY


def decode(
    body: bytes | bytearray, header_length: int | None = None, signature: tensors.Signature | None = None
) -> Request:
    """The request in ``body``, whose JSON part is ``header_length`` bytes long when tensors follow it.

    With the model's ``signature`` a tensor that cannot be read is first held against the datatype that it should have.
    """
    head, tail = binary.split(body, header_length)
    document = (large.parse(head) if len(head) >= large.MIN_BYTES else None) or parse(head, header_length is None)
    parameters = parameters_of(document)
    items = document.get("inputs")
    if not isinstance(items, list) or not items:
        said = "the request has no inputs" if not items else f"'inputs' is {tensors.brief(items)}"
        raise InvalidInput(f"{said}, expected a list 'inputs' with at least one tensor")
    remaining = binary.Reader(tail)
    try:
        inputs = [_input(item, remaining) for item in items]
    except InvalidInput as error:
        given = [(item.get("name"), item.get("datatype")) for item in items if isinstance(item, dict)]
        raise (signature and signature.mistyped(given)) or error from error
    remaining.finish()
    outputs = document.get("outputs")
    if outputs is not None and not isinstance(outputs, list):
        raise InvalidInput(f"'outputs' is {tensors.brief(outputs)}, expected a list of outputs by name")
    identity = document.get("id", "")
    if identity is not None and not isinstance(identity, str):
        raise InvalidInput(f"'id' is {tensors.brief(identity)}, expected text")
    wanted = [_wanted(item) for item in outputs or ()]
    if not parameters:
        return Request(identity or "", inputs, wanted)
    binary_output = _flag(parameters, "binary_data_output") or False
    return Request(identity or "", inputs, wanted, binary_output, parameters, *options.schedule(parameters))


def parse(text: bytes | bytearray | memoryview, may_have_tail: bool = False) -> dict[str, Any]:
    """A JSON object; InvalidInput says where the text stops being one, and asks for the header if a tail follows it.

    orjson bounds the depth (1024) by itself. It does not bound what many tiny values weigh as Python objects: a list
    of two bytes takes 60, and enough of them keep the garbage collector busy for seconds, so they are counted before.
    """
    if len(text) > _COUNTED_BYTES:
        _count(bytes(text))
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text[:2] == _GZIP:
            raise InvalidInput(
                "the request is no JSON but gzip data, expected the header Content-Encoding: gzip with it"
            ) from error
        asked = f"; {binary.QUESTION}" if may_have_tail and _ends_early(bytes(text)) else ""
        raise InvalidInput(f"the request is no JSON: {error}{asked}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"the request is {tensors.brief(document)}, expected a JSON object")
    return document


def _ends_early(text: bytes) -> bool:
    """Whether a JSON document ends before the text does."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        text = text[: error.start]
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return "after document" in error.msg
    return True


def _count(text: bytes) -> None:
    if text.count(b"[") + text.count(b"{") > _MAX_LISTS:
        raise InvalidInput(f"the request has more than {_MAX_LISTS} lists and objects; send values as one flat list")
    if text.count(b'"') > 2 * _MAX_TEXTS:
        raise InvalidInput(f"the request has more than {_MAX_TEXTS} texts; send them as binary data, or fewer")


def _input(item: Any, remaining: binary.Reader) -> Tensor:
    name, parameters = _named(item, "input")
    datatype = item.get("datatype")
    dimensions = item.get("shape")
    if not isinstance(dimensions, list):
        given = "no shape" if dimensions is None else f"shape {tensors.brief(dimensions)}"
        raise InvalidInput(f"tensor '{name}' has {given}, expected a list of numbers")
    shape = tensors.shape(name, dimensions)
    size = parameters.get("binary_data_size")
    if size is not None:
        if "data" in item:
            raise InvalidInput(f"tensor '{name}' has both data and binary_data_size, expected one of them")
        return Tensor(name, datatype, elements.from_bytes(name, datatype, shape, remaining.take(name, size)))
    if "data" not in item:
        raise InvalidInput(f"tensor '{name}' has no data, expected 'data' or the parameter binary_data_size")
    return Tensor(name, datatype, elements.from_values(name, datatype, shape, item["data"]))


def _wanted(item: Any) -> Wanted:
    name, parameters = _named(item, "output")
    if not parameters:
        return Wanted(name)
    return Wanted(name, _flag(parameters, "binary_data"), options.classes(name, parameters))


def _named(item: Any, kind: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise InvalidInput(f"an {kind} is {tensors.brief(item)}, expected an object with a 'name'")
    parameters = parameters_of(item)
    options.no_shared_memory(kind, item["name"], parameters)
    return item["name"], parameters


def parameters_of(item: dict[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request or of a tensor; none when it has none."""
    parameters = item.get("parameters")
    if parameters is None:
        return options.NONE
    if not isinstance(parameters, dict):
        owner = f"'{item['name']}'" if "name" in item else "the request"
        raise InvalidInput(f"'parameters' of {owner} is {tensors.brief(parameters)}, expected an object")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"the parameter {name} is {tensors.brief(value)}, expected true or false")
    return value


def encode(response: Response, request: Request) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part when tensors follow it."""
    asked = {wanted.name: wanted.binary for wanted in request.outputs}
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for tensor in response.outputs:
        item: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.array.shape,
        }
        choice = asked.get(tensor.name)
        if request.binary if choice is None else choice:
            raw = elements.to_bytes(tensor)
            item["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            item["data"] = elements.to_values(tensor)
        outputs.append(item)
    document: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        document["id"] = response.id
    document["outputs"] = outputs
    head = orjson.dumps(document, option=_JSON)
    if not tail:
        return head, None
    return b"".join((head, *tail)), len(head)


def decode_raw(body: bytes | bytearray, signature: tensors.Signature) -> Request:
    """A request that is nothing but the bytes of its one input (``Inference-Header-Content-Length: 0``).

    One dimension of unknown size is computed from the number of bytes; a leading one is 1 when there
    are more of them.
    """
    if len(signature.inputs) != 1:
        raise InvalidInput(
            f"the model has {len(signature.inputs)} inputs; a body without a JSON part "
            "(Inference-Header-Content-Length: 0) needs a model with one"
        )
    spec = signature.inputs[0]
    shape = list(spec.shape)
    if shape.count(-1) > 1 and shape[0] == -1:
        shape[0] = 1
    if spec.datatype == "BYTES":
        raw: bytes = len(body).to_bytes(4, "little") + body
        shape = [1 if size == -1 else size for size in shape]
    else:
        raw = bytes(body)
        if shape.count(-1) > 1:
            raise InvalidInput(
                f"tensor '{spec.name}' of shape {list(spec.shape)} cannot be sent without a JSON part: "
                "more than one dimension is unknown"
            )
        if -1 in shape:
            row = int(np.prod([size for size in shape if size != -1])) * tensors.DTYPES[spec.datatype].itemsize
            shape[shape.index(-1)] = len(raw) // max(row, 1)
    array = elements.from_bytes(spec.name, spec.datatype, tuple(shape), raw)
    return Request(id="", inputs=[Tensor(spec.name, spec.datatype, array)], binary=True)
