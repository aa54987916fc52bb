"""The binary tensor extension of V2 REST: JSON, then the bytes of the tensors in JSON order."""

from __future__ import annotations

from serving.errors import InvalidInput
from serving.tensors import brief

HEADER = b"inference-header-content-length"
QUESTION = "is the header Inference-Header-Content-Length set?"
Buffer = bytes | bytearray | memoryview


def header_length(value: bytes) -> int:
    """The number in the header ``Inference-Header-Content-Length``."""
    if not value.isdigit() or len(value) > 18:
        raise InvalidInput(
            f"the header Inference-Header-Content-Length is {brief(value.decode('latin-1'))}, expected a number"
        )
    return int(value)


def split(body: bytes | bytearray, length: int | None) -> tuple[Buffer, memoryview]:
    """The JSON part of a body and the bytes after it."""
    if length is None:
        return body, memoryview(b"")
    if length > len(body):
        raise InvalidInput(
            f"the header Inference-Header-Content-Length is {length}, expected at most the {len(body)} bytes "
            "of the body"
        )
    view = memoryview(body)
    return view[:length], view[length:]


class Reader:
    """Hands out the bytes after the JSON part, tensor by tensor."""

    __slots__ = ("_at", "_tail")

    def __init__(self, tail: memoryview) -> None:
        self._tail = tail
        self._at = 0

    def take(self, tensor: str, size: object) -> memoryview:
        """The next ``size`` bytes, which belong to ``tensor``."""
        if type(size) is not int or size < 0:
            raise InvalidInput(f"tensor '{tensor}' has binary_data_size {brief(size)}, expected a number of bytes")
        left = len(self._tail) - self._at
        if size > left:
            raise InvalidInput(
                f"tensor '{tensor}' has binary_data_size {size}, expected at most the {left} bytes that follow; "
                f"{QUESTION}"
            )
        self._at += size
        return self._tail[self._at - size : self._at]

    def finish(self) -> None:
        """InvalidInput when bytes are left that no tensor claims."""
        left = len(self._tail) - self._at
        if left:
            raise InvalidInput(f"{left} bytes follow the last tensor, expected none")
