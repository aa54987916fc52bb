"""gRPC's framing as it arrives from the router: HTTP/1.1, one length-prefixed message each way, trailers.

The router speaks HTTP/2 with the client and turns the call into HTTP/1.1 for a server that does not,
trailers included; so a unary call costs here what a REST request costs.
"""

from __future__ import annotations

import string
import struct
import urllib.parse

from serving.errors import GrpcCode, InvalidInput, ServingError, TooLarge, Unsupported
from serving.http import coding

_PLAIN = "".join(set(string.printable) - set("%\t\n\r\x0b\x0c"))
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HEAD = b"content-type: application/grpc\r\n"
_PREFIX = struct.Struct(">BI")
PREFIX_BYTES = _PREFIX.size
_TIMEOUT_LENGTH = 20
HEAD_BYTES = 70
"""Tag, length and at most 63 characters of a model's name, with room."""


class NotOneMessage(InvalidInput):
    """A unary call with no whole message, or with more than one; the code is the one gRPC has for it."""

    grpc = GrpcCode.UNIMPLEMENTED

    def __init__(self, text: str = "the call ended without a whole message; expected one") -> None:
        super().__init__(text)


class Malformed(InvalidInput):
    """Headers or framing that break gRPC's rules; the code is the one gRPC has for it."""

    grpc = GrpcCode.INTERNAL


def message(body: bytes | bytearray, encoding: str, limit: int) -> memoryview | bytes:
    """The one message in a request's body; its prefix counts towards the limit."""
    flag, length = _PREFIX.unpack_from(body) if len(body) >= PREFIX_BYTES else (0, 0)
    if length != len(body) - PREFIX_BYTES or flag > 1:
        raise _not_one(len(body) - PREFIX_BYTES, flag, length, limit - PREFIX_BYTES)
    view = memoryview(body)[PREFIX_BYTES:]
    if flag == 0:
        return view
    if encoding in ("", "identity"):
        raise Malformed(
            "the gRPC message is compressed, and grpc-encoding does not say how; send gzip, deflate or none"
        )
    try:
        return coding.unpack(bytes(view), encoding, limit - PREFIX_BYTES)
    except (TooLarge, Unsupported):
        raise
    except InvalidInput as error:
        raise Malformed(str(error)) from error


def _not_one(size: int, flag: int, length: int, limit: int) -> InvalidInput:
    if length > limit:
        return TooLarge(f"the gRPC message says {length} bytes, the limit of this server is {limit}")
    if size > length and flag <= 1:
        return NotOneMessage(f"the call has {size - length} bytes behind its first message; expected one message")
    return NotOneMessage()


def timeout_s(value: bytes) -> float:
    """The header grpc-timeout in seconds; more than eight digits are read too, as grpcio does."""
    unit = _UNITS_S.get(value[-1:])
    if unit is None or not value[:-1].isdigit() or len(value) > _TIMEOUT_LENGTH:
        raise Malformed(
            f"grpc-timeout '{value[:40].decode('latin-1')}' is no time; expected up to 8 digits and H, M, S, m, u or n"
        )
    return int(value[:-1]) * unit


def compression(wish: str | bytes | None) -> str | None:
    """How an answer is compressed for a client that asks so; it is asked, so it is not held against what it accepts."""
    return str(wish) if wish in ("gzip", "deflate") else None


def answer(payload: bytes, compressed: str | None = None) -> bytes:
    """Headers after the status line, body and trailers of a call that went well."""
    encoding = b""
    if compressed is not None:
        payload = coding.pack(payload, compressed)
        encoding = b"grpc-encoding: %b\r\n" % compressed.encode()
    return b"".join(
        (
            _HEAD,
            encoding,
            b"transfer-encoding: chunked\r\n\r\n%x\r\n" % (len(payload) + PREFIX_BYTES),
            _PREFIX.pack(1 if encoding else 0, len(payload)),
            payload,
            b"\r\n0\r\ngrpc-status: 0\r\n\r\n",
        )
    )


def refusal(error: ServingError) -> bytes:
    """Headers after the status line of a call that failed: trailers only, no body."""
    text = urllib.parse.quote(str(error), safe=_PLAIN).encode()
    return b"%bgrpc-status: %d\r\ngrpc-message: %b\r\ncontent-length: 0\r\n\r\n" % (_HEAD, error.grpc, text)
