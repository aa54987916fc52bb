"""Large V2 requests in JSON: numbers go from the text into arrays without becoming Python objects.

simdjson parses into a tape, from which a list of numbers is copied as one buffer; orjson's way over objects takes three
times as long and nine times the memory. A buffer says nothing of how its list was nested, so a list is taken only
where its nesting is that of the tensor's shape: the brackets of the whole text are those that the shapes need, and
every row has its length. Whatever is not plain in this sense is left to orjson, which also words every complaint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import simdjson

MIN_BYTES = 16 * 1024
_BUFFERS: dict[Any, Literal["d", "i", "u"]] = {
    "FP32": "d",
    "FP64": "d",
    "INT8": "i",
    "INT16": "i",
    "INT32": "i",
    "INT64": "i",
    "UINT8": "i",
    "UINT16": "i",
    "UINT32": "i",
    "UINT64": "u",
}
_MAX_INPUTS = 1024
_DTYPES = {"d": np.float64, "i": np.int64, "u": np.uint64}


def parse(text: bytes | bytearray | memoryview) -> dict[str, Any] | None:
    """The object in ``text`` with the numbers of its tensors as arrays; None when it is for orjson to judge."""
    try:
        document = simdjson.Parser().parse(bytes(text))
        return _document(document, bytes(text).count(b"[")) if isinstance(document, simdjson.Object) else None
    except (RuntimeError, ValueError, TypeError, KeyError):
        return None


def _document(document: Any, brackets: int) -> dict[str, Any] | None:
    found = _members(document)
    items = found.get("inputs")
    if not isinstance(items, simdjson.Array) or len(items) > _MAX_INPUTS:
        return None
    inputs = []
    brackets -= 1
    for item in items:
        if not isinstance(item, simdjson.Object):
            return None
        tensor = _members(item)
        data, shape, kind = tensor.get("data"), tensor.get("shape"), _BUFFERS.get(str(tensor.get("datatype")))
        if kind is None or not isinstance(data, simdjson.Array) or not isinstance(shape, simdjson.Array):
            return None
        dimensions = shape.as_list()
        needed = _lists(data, dimensions)
        if needed is None:
            return None
        brackets -= 1 + needed
        array = np.frombuffer(data.as_buffer(of_type=kind), _DTYPES[kind])
        inputs.append({**{key: _plain(value) for key, value in tensor.items() if key != "data"}, "data": array})
    rest = {key: _plain(value) for key, value in found.items() if key != "inputs"}
    brackets -= int(isinstance(found.get("outputs"), simdjson.Array))
    return {**rest, "inputs": inputs} if brackets == 0 else None


def _members(item: Any) -> dict[str, Any]:
    """An object's members, lists unread; ValueError where a name is there twice: orjson takes the last one."""
    names = list(item.keys())
    if len(set(names)) != len(names):
        raise ValueError(names)
    return {name: item[name] for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, simdjson.Object) else value


def _lists(data: Any, dimensions: Sequence[Any]) -> int | None:
    """How many lists ``data`` is made of, flat or nested as the shape says; None for anything else."""
    if not all(type(size) is int and size > 0 for size in dimensions):
        return None
    if not isinstance(data[0] if len(data) else None, simdjson.Array):
        return 1
    return _rows(data, dimensions)


def _rows(data: Any, dimensions: Sequence[int]) -> int | None:
    if not dimensions or len(data) != dimensions[0]:
        return None
    if len(dimensions) == 1:
        return 1
    count = 1
    for row in data:
        inner = _rows(row, dimensions[1:]) if isinstance(row, simdjson.Array) else None
        if inner is None:
            return None
        count += inner
    return count
