from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from serving.telemetry import spans

SAMPLED = TraceFlags(1)
OWN = SpanContext(2**128 - 2, 2**64 - 3, False, SAMPLED)
STATED = SpanContext(2**127 + 1, 7, False, SAMPLED, TraceState([("vendor", "1"), ("other", "2")]))
REMOTE = SpanContext(2**127 + 1, 2**63, True, SAMPLED)
BEGUN, ENDED = 1_767_225_599_999_600_000, 1_767_225_600_999_600_001
VALUES: dict[str, Any] = {
    "text": "é" * 100,
    "empty": "",
    "long": "x" * 20_000,
    "zero": 0,
    "one": 1,
    "yes": True,
    "no": False,
    "large": 2**63 - 1,
    "negative": -5,
    "seconds": 1.5e-5,
    "several": ("a", "b"),
    "numbers": [1, 2.5],
    "named": {"a": {"b": b"c"}},
}


@pytest.mark.parametrize(
    ("own", "parent", "kind", "attributes", "links", "status"),
    [
        (OWN, None, SpanKind.INTERNAL, {}, (), Status()),
        (STATED, REMOTE, SpanKind.SERVER, VALUES, (), Status(StatusCode.ERROR, "DeadlineExceeded")),
        (STATED, OWN, SpanKind.INTERNAL, {"one": True}, (OWN, REMOTE), Status(StatusCode.OK)),
        (OWN, None, SpanKind.INTERNAL, {"one": 1}, [OWN] * 300, Status(StatusCode.ERROR)),
    ],
)
def test_a_span_is_encoded_as_the_sdk_does(
    own: SpanContext, parent: SpanContext | None, kind: SpanKind, attributes: Any, links: Any, status: Status
) -> None:
    data = spans.encoded("compute", own, parent, kind, BEGUN, ENDED, attributes, links, status)

    of_sdk = ReadableSpan(
        "compute", own, parent, attributes=attributes, links=[Link(link) for link in links], kind=kind, status=status,
        start_time=BEGUN, end_time=ENDED,
    )  # fmt: skip
    assert _parsed(data) == _as_parsed(encode_spans([of_sdk]).resource_spans[0].scope_spans[0].spans[0])


def _parsed(data: bytes) -> Span:
    [span] = ScopeSpans.FromString(data).spans
    return span


def _as_parsed(span: Span) -> Span:
    """Without a status that says nothing, which need not be sent."""
    if not span.status.ByteSize():
        span.ClearField("status")
    return span
