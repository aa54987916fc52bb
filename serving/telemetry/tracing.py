"""Spans of requests, made after they ended from the times that were noted on their way.

A request whose caller sent a W3C ``traceparent`` is sampled as the SDK's sampler says. Of those without one a sampler
that takes a share of all need not be asked about each: ``sampling`` says which is the next, its trace id is drawn among
those that the sampler takes, and the sampler is asked about that one.

A sampled request gets a server span with two children, ``queue`` and ``compute``. A call of the engine for several
requests gets a span in a trace of its own; it and their ``compute`` spans link to each other. They end at different
times, so it is made a second later.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from typing import cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serving.errors import GrpcCode, ServingError
from serving.scheduling.job import Call as EngineCall
from serving.telemetry import records, spans
from serving.telemetry.observing import Caller, End, Facts

_GRPC_FAULTS = {2, 4, 12, 13, 14, 15}
"""Codes that the semantic conventions call errors of a server; the others are the client's."""
_PATIENCE_S = 60
"""Of a call of the engine that takes longer than this, a span is made before it ends."""
_UNSET = Status()
_W3C = TraceContextTextMapPropagator()
_ROOT = Context()

Attributes = Mapping[str, AttributeValue]
_NONE: Attributes = {}


class Roots:
    """Which requests without a parent are worth asking the sampler, and with which trace ids."""

    def __init__(self, sampler: Sampler) -> None:
        found = re.match(r"(?:ParentBased{root:)?(?:(AlwaysOff)|TraceIdRatioBased{([^}]+)})", sampler.get_description())
        self.share = 1.0 if found is None else float(found[2] or 0)
        self._bound = 2**64 if found is None else TraceIdRatioBased.get_bound_for_rate(self.share)

    def trace_id(self) -> int:
        """A new trace id that the sampler may take."""
        return random.getrandbits(64) << 64 | random.randrange(self._bound)


class _Batch:
    """A call of the engine whose span still gets links."""

    def __init__(self, facts: Facts) -> None:
        self.context = _context(random.getrandbits(128))
        self.facts = facts
        self.links: list[SpanContext] = []
        self.seconds = 0


class Tracing:
    """Makes spans and has them exported by a background thread. Configured by the SDK's own environment variables."""

    def __init__(self, exporter: SpanExporter) -> None:
        configured = TracerProvider(shutdown_on_exit=False)
        self._sampler = configured.sampler
        self._roots = Roots(self._sampler)
        self.share = self._roots.share
        """Of requests without a parent, those for which spans may be made."""
        self._drops_unsampled = "remoteParentNotSampled:AlwaysOffSampler" in self._sampler.get_description()
        self._processor = BatchSpanProcessor(exporter)
        self._batches: dict[EngineCall, _Batch] = {}
        self._epoch_ns = _epoch_ns()

    def ended(self, facts: Facts, caller: Caller | None, end: End, sampled: bool) -> str:
        """Makes the spans of a request that is to have some, and gives its trace id; empty where nothing traces it.

        ``sampled`` is whether it is of the share of those without a parent.
        """
        if caller is None:
            if not sampled:
                return ""
            context, trace_id = _ROOT, self._roots.trace_id()
        elif self._drops_unsampled and caller.traceparent.endswith("-00"):
            return records.trace_id(caller.traceparent)
        else:
            context, trace_id = _W3C.extract(caller._asdict(), _ROOT), random.getrandbits(128)
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if parent is not None and parent.is_valid:
            trace_id = parent.trace_id
        else:
            parent = None
        decided = self._sampler.should_sample(context, trace_id, "infer", SpanKind.SERVER)
        if decided.decision is not Decision.RECORD_AND_SAMPLE:
            return "" if parent is None else f"{trace_id:032x}"
        self._request(facts, parent, _context(trace_id, decided, parent), decided, end)
        return f"{trace_id:032x}"

    def _request(
        self,
        facts: Facts,
        parent: SpanContext | None,
        own: SpanContext,
        decided: SamplingResult,
        end: End,
    ) -> None:
        way, error, ended = facts.way, end.error, end.ended
        name, attributes = _named(facts, error)
        if way is not None:
            computed = records.computation(way, ended)
            begun, until = computed or (ended, ended)
            attributes["penstock.queue.duration"] = begun - way.submitted
            self._span("queue", _below(own), own, way.submitted, begun)
            if computed is not None:
                attributes["penstock.batch.size"] = records.rows(way)
                links = () if way.call is None else self._linked(way.call, facts, own)
                self._span("compute", _below(own), own, begun, until, links=links)
        status = _UNSET
        if error is not None and _is_fault(facts, error):
            status = Status(StatusCode.ERROR, type(error).__name__)
        if decided.attributes:
            attributes = {**decided.attributes, **attributes}
        self._span(name, own, parent, end.received, ended, attributes, SpanKind.SERVER, status)

    def _linked(self, call: EngineCall, facts: Facts, request: SpanContext) -> tuple[SpanContext, ...]:
        """Links of a request to the call that it shared and back."""
        if call.requests < 2:
            return ()
        batch = self._batches.get(call)
        if batch is None:
            batch = self._batches[call] = _Batch(facts)
        batch.links.append(request)
        return (batch.context,)

    def _span(
        self,
        name: str,
        own: SpanContext,
        parent: SpanContext | None,
        begun: float,
        ended: float,
        attributes: Attributes = _NONE,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _UNSET,
        links: tuple[SpanContext, ...] = (),
    ) -> None:
        begun_ns, ended_ns = self._epoch_ns + int(begun * 1e9), self._epoch_ns + int(ended * 1e9)
        data = spans.encoded(name, own, parent, kind, begun_ns, ended_ns, attributes, links, status)
        self._processor.on_end(cast(ReadableSpan, spans.Encoded(own, data)))

    def every_second(self) -> None:
        """Makes the spans of calls whose requests have had their time to link to them."""
        self._epoch_ns = _epoch_ns()
        for call, batch in list(self._batches.items()):
            batch.seconds += 1
            if (batch.seconds > 1 and call.ended > call.begun) or batch.seconds > _PATIENCE_S:
                self._end(call)

    def _end(self, call: EngineCall) -> None:
        batch = self._batches.pop(call)
        attributes: Attributes = {
            "penstock.model.name": batch.facts.model,
            "penstock.model.version": batch.facts.version,
            "penstock.batch.size": call.rows,
            "penstock.batch.requests": call.requests,
        }
        self._span("batch", batch.context, None, call.begun, call.ended, attributes, links=tuple(batch.links))

    def close(self) -> None:
        """Exports what waits."""
        for call in list(self._batches):
            self._end(call)
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _context(trace_id: int, decided: SamplingResult | None = None, parent: SpanContext | None = None) -> SpanContext:
    flags = TraceFlags.SAMPLED if parent is None else TraceFlags.SAMPLED | parent.trace_flags
    state = None if decided is None else decided.trace_state
    return SpanContext(trace_id, random.getrandbits(64), False, TraceFlags(flags), state)


def _below(parent: SpanContext) -> SpanContext:
    return SpanContext(parent.trace_id, random.getrandbits(64), False, parent.trace_flags, parent.trace_state)


def _epoch_ns() -> int:
    """When ``time.perf_counter`` was 0."""
    return time.time_ns() - time.perf_counter_ns()


def _named(facts: Facts, error: ServingError | None) -> tuple[str, dict[str, AttributeValue]]:
    """Name and attributes of a server span by the semantic conventions for HTTP and RPC."""
    attributes: dict[str, AttributeValue] = {
        "penstock.model.name": facts.model[: records.MAX_TEXT],
        "penstock.model.version": facts.version[: records.MAX_TEXT],
    }
    if facts.id:
        attributes["penstock.request.id"] = facts.id[: records.MAX_TEXT]
    if facts.protocol == "grpc":
        code = GrpcCode.OK if error is None else error.grpc
        name = facts.path.removeprefix("/")
        attributes |= {"rpc.system.name": "grpc", "rpc.method": name, "rpc.response.status_code": code.name}
        if error is not None and _is_fault(facts, error):
            attributes["error.type"] = code.name
        return name, attributes
    status = 200 if error is None else error.http
    attributes |= {
        "http.request.method": "POST",
        "http.response.status_code": status,
        "http.route": facts.route,
        "url.path": facts.path,
        "url.scheme": "http",
        "http.request.body.size": facts.bytes_in,
    }
    if status >= 500:
        attributes["error.type"] = str(status)
    return f"POST {facts.route}", attributes


def _is_fault(facts: Facts, error: ServingError) -> bool:
    return error.grpc in _GRPC_FAULTS if facts.protocol == "grpc" else error.http >= 500
