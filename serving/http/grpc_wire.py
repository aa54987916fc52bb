"""gRPC's framing as it arrives from the router: HTTP/1.1, one length-prefixed message each way, trailers.

The router speaks HTTP/2 with the client and turns the call into HTTP/1.1 for a server that does not,
trailers included; so a unary call costs here what a REST request costs.
"""

from __future__ import annotations

import string
import struct
import urllib.parse

from serving.errors import InvalidInput, ServingError, Unsupported
from serving.http import coding

_PLAIN = "".join(set(string.printable) - set("%\t\n\r\x0b\x0c"))
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HEAD = b"content-type: application/grpc\r\n"


def message(body: bytes | bytearray, encoding: str, limit: int) -> memoryview | bytes:
    """The one message in a request's body."""
    if len(body) < 5:
        raise InvalidInput(f"the request has {len(body)} bytes, expected a gRPC message with its prefix of 5 bytes")
    flag, length = struct.unpack_from(">BI", body)
    if length != len(body) - 5:
        raise InvalidInput(f"the gRPC message says {length} bytes, {len(body) - 5} came; expected one whole message")
    view = memoryview(body)[5:]
    if flag == 0:
        return view
    if flag != 1 or encoding in ("", "identity"):
        raise Unsupported(f"the gRPC message is compressed with '{encoding[:40]}'; send gzip, deflate or none")
    return coding.unpack(bytes(view), encoding, limit)


def timeout_s(value: bytes) -> float | None:
    """The header grpc-timeout in seconds; None when it says nothing readable."""
    unit = _UNITS_S.get(value[-1:])
    return int(value[:-1]) * unit if unit is not None and value[:-1].isdigit() and len(value) <= 9 else None


def answer(payload: bytes) -> bytes:
    """Headers after the status line, body and trailers of a call that went well."""
    return b"".join(
        (
            _HEAD,
            b"transfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n%x\r\n\0" % (len(payload) + 5),
            struct.pack(">I", len(payload)),
            payload,
            b"\r\n0\r\ngrpc-status: 0\r\n\r\n",
        )
    )


def refusal(error: ServingError) -> bytes:
    """Headers after the status line of a call that failed: trailers only, no body."""
    text = urllib.parse.quote(str(error), safe=_PLAIN).encode()
    return b"%bgrpc-status: %d\r\ngrpc-message: %b\r\ncontent-length: 0\r\n\r\n" % (_HEAD, error.grpc, text)
