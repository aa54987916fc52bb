"""The V2 datatypes, tensors, and the signature that a request must fit.

A tensor's values are a C-contiguous NumPy array in row-major order. ``BYTES`` is an array of Python
``bytes`` (dtype object). NumPy has no bfloat16, so ``BF16`` is carried as its 16 bits (uint16); it
exists as binary only, and so does ``FP16`` (the Open Inference Protocol's rule).
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

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
_MAX_ELEMENTS = 2**60
BINARY_ONLY = frozenset({"FP16", "BF16"})

Array = np.ndarray[Any, np.dtype[Any]]


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
    labels: tuple[str, ...] = ()
    """Names of an output's classes, by their index; Triton's classification extension shows them."""

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape fits."""
        if len(shape) != len(self.shape):
            return False
        for want, got in zip(self.shape, shape, strict=True):  # noqa: SIM110 -- twice as fast as all() for 3 sizes
            if want != got and want != -1:
                return False
        return True


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

    def mistyped(self, given: Iterable[tuple[Any, Any]]) -> InvalidInput | None:
        """What to say of the first input, by name and datatype, whose datatype is not the model's; None: all fit."""
        expected = {spec.name: spec.datatype for spec in self.inputs}
        for name, datatype in given:
            if isinstance(name, str) and expected.get(name, datatype) != datatype:
                return InvalidInput(
                    f"input '{name}' has datatype {brief(datatype)}, the model expects {expected[name]}"
                )
        return None

    def labelled(self, labels: Mapping[str, Sequence[str]]) -> Signature:
        """The same with labels for outputs; InvalidInput names one that there is not."""
        known = [spec.name for spec in self.outputs]
        for name in labels:
            if name not in known:
                raise InvalidInput(f"labels are given for an output '{name}'; the model has {listed(known)}")
        outputs = [dataclasses.replace(spec, labels=tuple(labels.get(spec.name, ()))) for spec in self.outputs]
        return Signature(self.inputs, tuple(outputs))

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
    if math.prod(result) > _MAX_ELEMENTS or len(result) > 32 or (0 in result and _beyond_numpy(result)):
        raise InvalidInput(
            f"tensor '{tensor}' has shape {brief(list(result))}, expected at most 32 dimensions and 2^60 elements"
        )
    return result


def _beyond_numpy(shape: tuple[int, ...]) -> bool:
    """NumPy multiplies the sizes of an empty tensor too, those that are not 0."""
    return math.prod(size or 1 for size in shape) > _MAX_ELEMENTS


def brief(value: Any) -> str:
    """A value as a message shows it, cut after 60 characters."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
