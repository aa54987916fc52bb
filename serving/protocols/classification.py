"""Triton's classification extension: of an output, the highest values with their place and label, as text.

``value:index[:label]``, the highest first and of equal ones the lower index; values as C++ prints them (a fraction
with six digits). An output whose first dimension is unknown has rows, each with classes of its own; of any other
output all elements are the classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving.errors import InvalidInput
from serving.requests import Request, Response
from serving.tensors import Array, Signature, Tensor, TensorSpec

_UNORDERED = frozenset({"BOOL", "BYTES", "FP16", "BF16"})


def answered(response: Response, request: Request, signature: Signature) -> Response:
    """The answer with classes in place of those outputs for which the request asks for them."""
    counts = {wanted.name: wanted.classes for wanted in request.outputs if wanted.classes}
    if not counts:
        return response
    specs = {spec.name: spec for spec in signature.outputs}
    outputs = [
        _classes(tensor, specs[tensor.name], counts[tensor.name]) if tensor.name in counts else tensor
        for tensor in response.outputs
    ]
    return response._replace(outputs=outputs)


def _classes(tensor: Tensor, spec: TensorSpec, count: int) -> Tensor:
    if tensor.datatype in _UNORDERED:
        raise InvalidInput(
            f"output '{tensor.name}' has datatype {tensor.datatype}, of which there is no classification; "
            "ask for the output without it"
        )
    in_rows = len(spec.shape) > 1 and spec.shape[0] == -1
    number = tensor.array.shape[0] if in_rows else 1
    width = math.prod(tensor.array.shape[1:] if in_rows else tensor.array.shape)
    count = min(count, width)
    result = np.empty((number, count), np.object_)
    for place, row in enumerate(tensor.array.reshape(number, width) if count else ()):
        result[place] = [_text(row[index].item(), index, spec.labels) for index in _highest(row, count)]
    return Tensor(tensor.name, "BYTES", result if in_rows else result[0])


def _highest(row: Array, count: int) -> list[int]:
    """The places of the highest values; what is no number comes last. Linear in the row's length for a few of many."""
    ranked = np.nan_to_num(row, nan=-np.inf, posinf=np.inf, neginf=-np.inf) if row.dtype.kind == "f" else row
    least = np.partition(ranked, len(row) - count)[len(row) - count]
    places = np.flatnonzero(ranked >= least)[::-1]
    order = np.argsort(ranked[places], kind="stable")[::-1]
    found: list[int] = places[order][:count].tolist()
    return found


def _text(value: Any, index: int, labels: tuple[str, ...]) -> bytes:
    text = f"{value:f}:{index}" if isinstance(value, float) else f"{value}:{index}"
    return (f"{text}:{labels[index]}" if index < len(labels) else text).encode()
