"""A tensor's elements as raw bytes and as JSON values, and back.

Nothing is rounded or reinterpreted on the way in: what does not fit its datatype is refused, with the
tensor's name, what was given and what is expected.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving import tensors
from serving.errors import InvalidInput
from serving.tensors import BINARY_ONLY, Array, Tensor

_SQUARES = {
    "FP16": float(np.finfo(np.float16).max) ** 2,
    "FP32": float(np.finfo(np.float32).max) ** 2,
    "FP64": math.inf,
}
"""A sum of squares below this has no term that the datatype cannot hold."""

_MAX_BYTES_ELEMENTS = 2**20
"""Each is a Python object that a loop makes, half a microsecond apiece."""


def from_bytes(tensor: str, datatype: str, dimensions: tuple[int, ...], raw: Any) -> Array:
    """A tensor from its little-endian bytes; no copy is made where memory allows.

    ``raw`` is any buffer. BYTES elements are each a uint32 length and that many bytes.
    """
    kind = tensors.dtype(tensor, datatype)
    size = math.prod(dimensions)
    if datatype == "BYTES":
        return _elements(tensor, dimensions, size, raw)
    given = len(raw)
    if given != size * kind.itemsize:
        raise InvalidInput(
            f"tensor '{tensor}' has {given} bytes, expected {size * kind.itemsize} "
            f"for datatype {datatype} and shape {list(dimensions)}"
        )
    array = np.frombuffer(raw, kind).reshape(dimensions)
    if not array.flags.aligned:
        array = array.copy()
    if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
        raise InvalidInput(f"tensor '{tensor}' of datatype BOOL holds a byte above 1, expected 0 or 1 each")
    return array


def _elements(tensor: str, dimensions: tuple[int, ...], size: int, raw: Any) -> Array:
    buffer = bytes(raw)
    end = len(buffer)
    if size > end // 4:
        raise InvalidInput(
            f"tensor '{tensor}' of datatype BYTES has {end} bytes, too few for {size} elements "
            f"of shape {list(dimensions)} (a length of 4 bytes before each)"
        )
    if size > _MAX_BYTES_ELEMENTS:
        raise InvalidInput(
            f"tensor '{tensor}' of datatype BYTES has {size} elements, expected at most {_MAX_BYTES_ELEMENTS} at a time"
        )
    array = np.empty(size, np.object_)
    at = 0
    for index in range(size):
        if at + 4 > end:
            raise InvalidInput(
                f"tensor '{tensor}' of datatype BYTES has {index} elements, expected {size} "
                f"for shape {list(dimensions)}"
            )
        length = int.from_bytes(buffer[at : at + 4], "little")
        at += 4
        if at + length > end:
            raise InvalidInput(
                f"tensor '{tensor}' of datatype BYTES: element {index} says {length} bytes, {end - at} are left"
            )
        array[index] = buffer[at : at + length]
        at += length
    if at != end:
        raise InvalidInput(
            f"tensor '{tensor}' of datatype BYTES has {end - at} bytes after its last element, "
            f"expected {size} elements for shape {list(dimensions)}"
        )
    return array.reshape(dimensions)


def to_bytes(tensor: Tensor) -> bytes:
    """A tensor's little-endian bytes, row-major: the inverse of ``from_bytes``."""
    if tensor.datatype == "BYTES":
        parts: list[bytes] = []
        for element in tensor.array.ravel():
            parts.append(len(element).to_bytes(4, "little"))
            parts.append(element)
        return b"".join(parts)
    return tensor.array.tobytes()


def from_values(tensor: str, datatype: str, dimensions: tuple[int, ...], values: Any) -> Array:
    """A tensor from JSON values or a list of numbers, nested or flat, row-major.

    Nothing is rounded or reinterpreted: a fraction is refused for an integer datatype, a number that
    does not fit is refused, text is no number.
    """
    kind = tensors.dtype(tensor, datatype)
    if datatype == "BYTES":
        array = _texts(tensor, values)
    elif datatype == "BF16":
        raise InvalidInput(f"tensor '{tensor}' of datatype BF16 must be sent as binary data")
    else:
        array = _numbers(tensor, datatype, kind, values)
    if array.size != math.prod(dimensions):
        raise InvalidInput(
            f"tensor '{tensor}' has {array.size} elements, expected {math.prod(dimensions)} "
            f"for shape {list(dimensions)}"
        )
    return array.reshape(dimensions)


def _numbers(tensor: str, datatype: str, kind: np.dtype[Any], values: Any) -> Array:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidInput(
            f"tensor '{tensor}' holds lists of unequal length, expected a flat list or equal rows"
        ) from error
    if array.size == 0:
        return np.empty(array.shape, kind)
    have, want = array.dtype.kind, kind.kind
    if want == "u" and have == "f" and kind.itemsize == 8:
        array = _large_unsigned(array, values)
        have = array.dtype.kind
    fits = have == "b" if want == "b" else have in "iu" if want in "iu" else have in "iuf"
    if not fits:
        raise InvalidInput(f"tensor '{tensor}' holds {_described(array)}, expected values of datatype {datatype}")
    if want in "iu":
        limits = np.iinfo(kind)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise InvalidInput(
                f"tensor '{tensor}' holds {low if low < limits.min else high}, expected values of datatype "
                f"{datatype} ({limits.min} to {limits.max})"
            )
        return array.astype(kind, copy=False)
    if want == "b":
        return array
    wide = array.astype(np.float64, copy=False).ravel()
    with np.errstate(over="ignore"):
        if wide.dot(wide) < _SQUARES[datatype]:  # no value is larger than the root of the sum of all squares
            return array.astype(kind, copy=False)
        result = array.astype(kind, copy=False)
    if not np.isfinite(result).all():
        worst = array.ravel()[int(np.argmin(np.isfinite(result)))]
        raise InvalidInput(f"tensor '{tensor}' holds {worst}, expected finite values of datatype {datatype}")
    return result


def _large_unsigned(array: Array, values: Any) -> Array:
    """Whole numbers above 2^63 that NumPy took for floats, as uint64; the array itself when there are fractions."""
    exact = np.array(values, np.object_).ravel()
    if all(type(value) is int and 0 <= value < 2**64 for value in exact):
        return exact.astype(np.uint64).reshape(array.shape)
    return array


def _texts(tensor: str, values: Any) -> Array:
    flat: list[bytes] = []
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(reversed(value))
        elif isinstance(value, str):
            flat.append(value.encode())
        elif isinstance(value, bytes):
            flat.append(value)
        else:
            raise InvalidInput(f"tensor '{tensor}' holds {tensors.brief(value)}, expected text for datatype BYTES")
    array = np.empty(len(flat), np.object_)
    array[:] = flat
    return array


def to_values(tensor: Tensor) -> Any:
    """A tensor's values as orjson takes them: a flat array, or a flat list of texts for BYTES."""
    if tensor.datatype in BINARY_ONLY:
        raise InvalidInput(
            f"output '{tensor.name}' has datatype {tensor.datatype}, which JSON cannot carry; "
            "ask for it with the parameter binary_data"
        )
    flat = tensor.array.ravel()
    if tensor.datatype != "BYTES":
        return flat
    try:
        return [element.decode() for element in flat]
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"output '{tensor.name}' holds bytes that are no UTF-8 text; ask for it with the parameter binary_data"
        ) from error


_KINDS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "fractions", "U": "text"}


def _described(array: Array) -> str:
    return _KINDS.get(array.dtype.kind, f"values like {tensors.brief(array.ravel()[0])}")
