"""The V2 datatypes, tensors, and the signature that a request must fit.

A tensor's values are a C-contiguous NumPy array in row-major order. ``BYTES`` is an array of Python
``bytes`` (dtype object). NumPy has no bfloat16, so ``BF16`` is carried as its 16 bits (uint16); it
exists as binary only, and so does ``FP16`` (the Open Inference Protocol's rule).
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
BINARY_ONLY = frozenset({"FP16", "BF16"})

Array = npt.NDArray[Any]


class Tensor(NamedTuple):
    """A named tensor as it came from a client or an engine."""

    name: str
    datatype: str
    array: Array


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What a model says about one tensor; -1 in ``shape`` stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits."""
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs a model needs and the outputs it gives, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def bind(self, model: str, tensors: Sequence[Tensor]) -> dict[str, Array]:
        """The inputs by name, after each was found to fit; InvalidInput names the first that does not."""
        given = {tensor.name: tensor for tensor in tensors}
        if len(given) != len(tensors):
            twice = next(t.name for t in tensors if sum(t.name == other.name for other in tensors) > 1)
            raise InvalidInput(f"input '{twice}' of model '{model}' was given twice; give each input once")
        bound: dict[str, Array] = {}
        for spec in self.inputs:
            tensor = given.get(spec.name)
            if tensor is None:
                raise InvalidInput(
                    f"input '{spec.name}' of model '{model}' is missing; given: {listed(given)}, "
                    f"expected: {listed(s.name for s in self.inputs)}"
                )
            if tensor.datatype != spec.datatype:
                raise InvalidInput(
                    f"input '{spec.name}' of model '{model}' has datatype {tensor.datatype}, expected {spec.datatype}"
                )
            if tensor.array.shape != spec.shape and not spec.admits(tensor.array.shape):
                raise InvalidInput(
                    f"input '{spec.name}' of model '{model}' has shape {list(tensor.array.shape)}, "
                    f"expected {list(spec.shape)}"
                )
            bound[spec.name] = tensor.array
        if len(bound) != len(given):
            unknown = next(name for name in given if name not in bound)
            raise InvalidInput(
                f"model '{model}' has no input '{unknown}'; expected: {listed(s.name for s in self.inputs)}"
            )
        return bound

    def wanted(self, model: str, names: Sequence[str]) -> tuple[TensorSpec, ...]:
        """The specs of the outputs asked for, in the order asked; all of them when none is named."""
        if not names:
            return self.outputs
        known = {spec.name: spec for spec in self.outputs}
        for position, name in enumerate(names):
            if name not in known:
                raise InvalidInput(f"model '{model}' has no output '{name}'; it gives: {listed(known)}")
            if name in names[:position]:
                raise InvalidInput(f"output '{name}' of model '{model}' was asked for twice; ask once")
        return tuple(known[name] for name in names)


def listed(names: Iterable[str]) -> str:
    """Names as a person reads them: ``'a', 'b'``; ``none`` when there are none."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def dtype(tensor: str, datatype: Any) -> np.dtype[Any]:
    """The NumPy dtype of a V2 datatype; InvalidInput names the tensor when there is no such datatype."""
    found = DTYPES.get(datatype) if isinstance(datatype, str) else None
    if found is None:
        raise InvalidInput(f"tensor '{tensor}' has datatype {brief(datatype)}, expected one of {', '.join(DTYPES)}")
    return found


def shape(tensor: str, dimensions: Iterable[Any]) -> tuple[int, ...]:
    """A concrete shape: whole numbers from 0 up, whose product fits a 64-bit count of elements."""
    result = tuple(dimensions)
    for size in result:
        if type(size) is not int or size < 0:
            raise InvalidInput(f"tensor '{tensor}' has shape {brief(list(result))}, expected whole numbers from 0 up")
    if math.prod(result) > np.iinfo(np.int64).max // 8 or len(result) > 32:
        raise InvalidInput(
            f"tensor '{tensor}' has shape {brief(list(result))}, expected at most 32 dimensions and 2^60 elements"
        )
    return result


def from_bytes(tensor: str, datatype: str, dimensions: tuple[int, ...], raw: Any) -> Array:
    """A tensor from its little-endian bytes; no copy is made where memory allows.

    ``raw`` is any buffer. BYTES elements are each a uint32 length and that many bytes.
    """
    kind = dtype(tensor, datatype)
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
    kind = dtype(tensor, datatype)
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
    with np.errstate(over="ignore"):
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
            raise InvalidInput(f"tensor '{tensor}' holds {brief(value)}, expected text for datatype BYTES")
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
    return _KINDS.get(array.dtype.kind, f"values like {brief(array.ravel()[0])}")


def brief(value: Any) -> str:
    """A value as a message shows it, cut after 60 characters."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
