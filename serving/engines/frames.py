"""What a server and an engine in a process of its own say to each other: JSON, and tensors as bytes.

A message is a prefix (length of the JSON, length of what follows it), the JSON, and the bytes of its tensors one
after the other; the JSON's ``tensors`` lists ``[name, datatype, shape, bytes]`` in that order. From ``SHARED_BYTES``
on, the tensors lie in memory that both ends map instead: 602 KB then cost one copy, where the socket costs two and a
switch between the processes for every 200 KB. No object is ever made from what arrives but numbers, text and arrays.

Each end writes one region and reads the other. The one that writes makes its region larger; a seal keeps either from
making it smaller, which would kill the reader.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson

from serving.errors import InvalidInput
from serving.protocols import elements
from serving.tensors import Array, Tensor

SHARED_BYTES = 16 * 1024
_KEPT_BYTES = 16 * 2**20
"""A region keeps at most this much memory between messages."""
_PREFIX = struct.Struct("<IQ")
_ALIGNMENT = 64
_MAX_HEAD_BYTES = 16 * 2**20
_MOST_BYTES = 2 * SHARED_BYTES
"""Most messages come whole with the first read of so much."""


class Region:
    """Memory that two processes share, known to both by a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def make(cls, name: str) -> Region:
        """A new region, which can only grow."""
        import fcntl

        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(descriptor)

    def write(self, parts: Sequence[memoryview | bytes], size: int) -> None:
        """Puts the parts in, each at a multiple of 64 bytes; ``size`` is their length together, padding included."""
        if (self._map is None or len(self._map) < size) and os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, -size % mmap.PAGESIZE + size)
        view = memoryview(self._mapped(size))
        at = 0
        for part in parts:
            view[at : at + len(part)] = part
            at += padded(len(part))

    def read(self, size: int) -> memoryview:
        """The first ``size`` bytes, to be used until the other end is sent the next message."""
        view = memoryview(self._mapped(size))[:size]
        if len(view) < size:
            raise ValueError(f"the region holds fewer than {size} bytes")
        return view

    def trim(self, size: int) -> None:
        """Gives memory back, after a message with ``size`` bytes was taken."""
        if size > _KEPT_BYTES and self._map is not None:
            self._map.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Lets go of it; the memory is freed when both ends have."""
        self._map = None
        os.close(self.descriptor)

    def _mapped(self, size: int) -> mmap.mmap:
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        return self._map


class Channel:
    """One end: sends and receives whole messages, blocking. OSError or EOFError when the other end has gone;
    ValueError, KeyError or TypeError when it says what is no message.
    """

    def __init__(self, connection: socket.socket, written: Region | None, read: Region | None) -> None:
        self._socket = connection
        self._written = written
        self._read = read

    def send(self, head: dict[str, Any], tensors: Sequence[Tensor] = ()) -> None:
        """Sends a document with its tensors."""
        parts = [_buffer(tensor) for tensor in tensors]
        described = [
            [tensor.name, tensor.datatype, tensor.array.shape, len(part)]
            for tensor, part in zip(tensors, parts, strict=True)
        ]
        inline = sum([len(part) for part in parts])
        shared = 0
        if inline >= SHARED_BYTES and self._written is not None:
            shared = sum([padded(len(part)) for part in parts])
            self._written.write(parts, shared)
            inline, parts = 0, []
        text = orjson.dumps({**head, "tensors": described, "shared": shared})
        self._send_all([_PREFIX.pack(len(text), inline), text, *parts])

    def receive(self) -> tuple[dict[str, Any], list[Tensor]]:
        """The next document and its tensors; those are views, good until this end sends again."""
        message, head_bytes, inline = self._message()
        body = memoryview(message)[_PREFIX.size :]
        head: dict[str, Any] = orjson.loads(body[:head_bytes])
        described, shared = head["tensors"], head["shared"]
        if shared and self._read is None:
            raise ValueError("a message says that its tensors are shared, and nothing is")
        if inline != (0 if shared else sum(size for *_, size in described)):
            raise ValueError("a message has more or fewer bytes than its tensors")
        if shared and self._read is not None:
            return head, list(_arrays(described, self._read.read(shared), _ALIGNMENT))
        return head, list(_arrays(described, body[head_bytes:], 1))

    def trim(self, head: dict[str, Any]) -> None:
        """Gives back what a received message used, if it was much; its tensors must not be read after that."""
        if head["shared"] and self._read is not None:
            self._read.trim(head["shared"])

    def close(self) -> None:
        """Lets go of everything, which the other end sees as the end."""
        self._socket.close()
        for region in (self._written, self._read):
            if region is not None:
                region.close()

    def _send_all(self, parts: list[memoryview | bytes]) -> None:
        sent = self._socket.sendmsg(parts)
        if sent == sum([len(part) for part in parts]):
            return
        rest = memoryview(b"".join(parts))[sent:]
        self._socket.sendall(rest)

    def _message(self) -> tuple[bytes | bytearray, int, int]:
        """A message, the length of its JSON and of what follows that. Each end waits for its turn to speak."""
        message: bytes | bytearray = self._socket.recv(_MOST_BYTES)
        if len(message) < _PREFIX.size:
            message = self._rest(message, _PREFIX.size)
        head_bytes, inline = _PREFIX.unpack_from(message)
        if head_bytes > _MAX_HEAD_BYTES or (self._read is not None and inline >= SHARED_BYTES):
            raise ValueError(f"a message says that it has {head_bytes} and {inline} bytes")
        whole = _PREFIX.size + head_bytes + inline
        if len(message) < whole:
            message = self._rest(message, whole)
        if len(message) > whole:
            raise ValueError("a message goes on beyond its end")
        return message, head_bytes, inline

    def _rest(self, begun: bytes | bytearray, size: int) -> bytearray:
        buffer = bytearray(size)
        at = len(begun)
        buffer[:at] = begun
        view = memoryview(buffer)
        while at < size:
            got = self._socket.recv_into(view[at:])
            if not got:
                raise EOFError("the other end has gone")
            at += got
        return buffer


def padded(size: int) -> int:
    """The room a tensor takes in a region."""
    return -size % _ALIGNMENT + size


def _buffer(tensor: Tensor) -> memoryview | bytes:
    if tensor.datatype == "BYTES":
        return elements.to_bytes(tensor)
    return np.ascontiguousarray(tensor.array).reshape(-1).view(np.uint8).data


def _arrays(described: Sequence[Any], raw: memoryview, alignment: int) -> Iterable[Tensor]:
    at = 0
    for name, datatype, shape, size in described:
        try:
            array: Array = elements.from_bytes(name, datatype, tuple(shape), raw[at : at + size])
        except InvalidInput as error:  # not a client's doing
            raise ValueError(str(error)) from error
        yield Tensor(name, datatype, array)
        at += -size % alignment + size
