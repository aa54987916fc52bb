"""Spans as OTLP's protobuf, field by field, and the SDK's exporter given them so.

The SDK makes a message of each span, of each attribute and of each value: more than 20 µs a span. Here names and most
attributes are encoded once and kept. Queue, batches, retries, compression and TLS stay the SDK's. The numbers of fields
are those of ``opentelemetry/proto/trace/v1/trace.proto``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

_KEPT = 4096
"""Names and attributes kept encoded; clients choose some of them."""
_IDS = struct.Struct(">2sQQ2sQ")
_PARENT = struct.Struct(">2sQ")
_TIMES = struct.Struct("<2ssQsQ")
_FLAGS = struct.Struct("<I")
_DOUBLE = struct.Struct("<sd")
_KINDS = {SpanKind.INTERNAL: b"\x30\x01", SpanKind.SERVER: b"\x30\x02"}
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
_HALF = 2**64 - 1


class Encoded:
    """A span on its way to the exporter; its context is all that the SDK's queue asks of it."""

    __slots__ = ("context", "data")

    def __init__(self, context: SpanContext, data: bytes) -> None:
        self.context = context
        self.data = data


class Exporter(OTLPSpanExporter):
    """The SDK's, for spans that are ``Encoded``."""

    def __init__(self) -> None:
        super().__init__()
        scope = InstrumentationScope("penstock")
        nothing = ReadableSpan("", SpanContext(1, 1, False), resource=Resource.create(), instrumentation_scope=scope)
        [around] = encode_spans([nothing]).resource_spans
        del around.scope_spans[0].spans[:]
        self._scope = around.scope_spans[0].SerializeToString()
        del around.scope_spans[:]
        self._around = around.SerializeToString()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends what was put into the queue."""
        of_scope = self._scope + b"".join([span.data for span in cast(Sequence[Encoded], spans)])
        sent = self._client.export(_field(1, self._around + _field(2, of_scope)))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def encoded(
    name: str,
    own: SpanContext,
    parent: SpanContext | None,
    kind: SpanKind,
    begun_ns: int,
    ended_ns: int,
    attributes: Mapping[str, AttributeValue],
    links: Iterable[SpanContext],
    status: Status,
) -> bytes:
    """A span as one of ``ScopeSpans.spans``."""
    parts = [_ids(own)]
    if own.trace_state:
        parts.append(_text(3, own.trace_state.to_header()))
    if parent is not None:
        parts.append(_PARENT.pack(b"\x22\x08", parent.span_id))
    parts += (_text(5, name), _TIMES.pack(_KINDS[kind], b"\x39", begun_ns, b"\x41", ended_ns))
    for key, value in attributes.items():
        parts.append(_attribute(key, value) if isinstance(value, str | int) else _field(9, _pair(key, value)))
    for link in links:
        parts.append(_field(13, _ids(link) + b"\x35" + _flags(link)))
    if status.status_code is not StatusCode.UNSET:
        told = _text(2, status.description or "") + b"\x18" + _varint(status.status_code.value)
        parts.append(_field(15, told))
    parts.append(b"\x85\x01" + _flags(parent))
    return _field(2, b"".join(parts))


def _ids(context: SpanContext) -> bytes:
    trace_id = context.trace_id
    return _IDS.pack(b"\x0a\x10", trace_id >> 64, trace_id & _HALF, b"\x12\x08", context.span_id)


def _flags(context: SpanContext | None) -> bytes:
    return _FLAGS.pack(_HAS_IS_REMOTE | _IS_REMOTE if context is not None and context.is_remote else _HAS_IS_REMOTE)


@functools.lru_cache(_KEPT)
def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode("utf-8", "replace"))


@functools.lru_cache(_KEPT, typed=True)
def _attribute(key: str, value: AttributeValue) -> bytes:
    return _field(9, _pair(key, value))


def _pair(key: str, value: AttributeValue) -> bytes:
    return _text(1, key) + _field(2, _value(value))


def _value(value: AttributeValue) -> bytes:
    """``AnyValue``."""
    if isinstance(value, str):
        return _field(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & _HALF)
    if isinstance(value, float):
        return _DOUBLE.pack(b"\x21", value)
    if isinstance(value, bytes):
        return _field(7, value)
    if isinstance(value, Mapping):
        return _field(6, b"".join([_field(1, _pair(name, one)) for name, one in value.items()]))
    return b"" if value is None else _field(5, b"".join([_field(1, _value(one)) for one in value]))


def _field(number: int, content: bytes) -> bytes:
    """A field of a length that stands before it."""
    return b"%c%b%b" % (number << 3 | 2, _varint(len(content)), content)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
