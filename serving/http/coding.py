"""gzip and deflate, both ways; what is unpacked is bounded before it is."""

from __future__ import annotations

import zlib

from serving.errors import InvalidInput, TooLarge, Unsupported

MIN_COMPRESSED = 1024
"""Answers below this size are sent as they are."""
_GZIP = 16 + zlib.MAX_WBITS
_FAST = 1


def beginning(body: bytes | bytearray, coding: str, length: int) -> bytes:
    """The first bytes of what a body unpacks to, however much of it there is."""
    try:
        return _decoder(coding).decompress(body, length)
    except zlib.error as error:
        raise InvalidInput(f"the body is no {coding} data: {error}") from error


def unpack(body: bytes | bytearray, coding: str, limit: int) -> bytes:
    """The body with its Content-Encoding undone; TooLarge when it would be more than ``limit`` bytes."""
    decoder = _decoder(coding)
    try:
        result = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is no {coding} data: {error}") from error
    if len(result) > limit:
        raise TooLarge(f"the body unpacks to more than {limit} bytes, the limit of this server (--max-request-bytes)")
    if not decoder.eof:
        raise InvalidInput(f"the body's {coding} data is cut off after {len(body)} bytes")
    return result


def _decoder(coding: str) -> zlib._Decompress:
    if coding == "gzip":
        return zlib.decompressobj(_GZIP)
    if coding == "deflate":
        return zlib.decompressobj()
    raise Unsupported(f"the content encoding '{coding[:40]}' is not known here; send gzip, deflate or none")


def pack(body: bytes, coding: str) -> bytes:
    """The body in a content coding chosen by ``accepted``."""
    encoder = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP if coding == "gzip" else zlib.MAX_WBITS)
    return encoder.compress(body) + encoder.flush()


def accepted(header: str) -> str | None:
    """The coding to answer in, from an Accept-Encoding header; None for plain."""
    for item in header.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() in ("gzip", "deflate") and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip()
    return None
