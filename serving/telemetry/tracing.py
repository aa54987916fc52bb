"""Spans of requests, made after they ended from the times that were noted on their way.

The sampler is asked once for each request, before anything else is made: with the parent that W3C ``traceparent``
names, or with a new trace id. For a sampled request there is a server span with two children, ``queue`` and
``compute``; for each batch with a sampled request in it a span of its own, linked to the server spans of its requests,
which ended at different times: it is made a second later.
"""

from __future__ import annotations

import random
import time

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serving.errors import GrpcCode, ServingError
from serving.observing import Call, Facts
from serving.scheduling.job import Call as EngineCall
from serving.telemetry import records

_NEVER_SAMPLED = "remoteParentNotSampled:AlwaysOffSampler"
_GRPC_FAULTS = {2, 4, 12, 13, 14, 15}
"""Codes that the semantic conventions call errors of a server; the others are the client's."""
_PATIENCE_S = 60
"""A call of the engine that takes longer than this has its span ended before it ends."""
_SAMPLED = SamplingResult(Decision.RECORD_AND_SAMPLE)
_W3C = TraceContextTextMapPropagator()
_ROOT = Context()


class _Decided(Sampler, RandomIdGenerator):
    """Gives the SDK the decision and the trace id that a request already has."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.result = _SAMPLED

    def generate_trace_id(self) -> int:
        return self.trace_id

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        return self.result

    def get_description(self) -> str:
        return "Decided"


class Tracing:
    """Makes spans and has them exported by a background thread. Configured by the SDK's own environment variables."""

    def __init__(self, exporter: SpanExporter) -> None:
        configured = TracerProvider(shutdown_on_exit=False)
        self._sampler = configured.sampler
        self._drops_unsampled_parents = _NEVER_SAMPLED in self._sampler.get_description()
        self._decided = _Decided()
        provider = TracerProvider(self._decided, configured.resource, False, id_generator=self._decided)
        self._processor = BatchSpanProcessor(exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("penstock")
        self._batches: dict[EngineCall, _Open] = {}
        self._epoch_ns = _epoch_ns()

    def ended(self, call: Call, received: float, ended: float, error: ServingError | None) -> str:
        """Makes the spans of a request that is to have some, and gives its trace id; empty where nothing traces it."""
        parent = call.header("traceparent")
        context, trace_id = _ROOT, random.getrandbits(128)
        if parent is not None:
            if self._drops_unsampled_parents and parent.endswith("-00"):
                return records.trace_id(parent)
            carrier = {"traceparent": parent, "tracestate": call.header("tracestate") or ""}
            context = _W3C.extract(carrier, _ROOT)
        result = self._sampler.should_sample(context, trace_id, "infer", SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return "" if parent is None else records.trace_id(parent)
        self._decided.trace_id, self._decided.result = trace_id, result
        return self._spans(call.facts(), context, received, ended, error)

    def _spans(self, facts: Facts, context: Context, received: float, ended: float, error: ServingError | None) -> str:
        job = facts.job
        computed = None if job is None else records.computation(job, ended)
        name, attributes = _named(facts, error)
        server = self._tracer.start_span(name, context, SpanKind.SERVER, start_time=self._ns(received))
        if job is not None:
            begun, until = computed or (ended, ended)
            attributes["penstock.queue.duration"] = begun - job.submitted
            inside = set_span_in_context(server, _ROOT)
            self._tracer.start_span("queue", inside, start_time=self._ns(job.submitted)).end(self._ns(begun))
            if computed is not None:
                attributes["penstock.batch.size"] = records.rows(job)
                compute = self._tracer.start_span("compute", inside, start_time=self._ns(begun))
                if job.call is not None and job.call.requests > 1:
                    batch = self._batch(job.call, facts)
                    compute.add_link(batch.get_span_context())
                    batch.add_link(server.get_span_context())
                compute.end(self._ns(until))
        server.set_attributes(attributes)  # the SDK takes those of a beginning span from its sampler
        if error is not None and _is_fault(facts, error):
            server.set_status(Status(StatusCode.ERROR, type(error).__name__))
        server.end(self._ns(ended))
        return f"{server.get_span_context().trace_id:032x}"

    def _batch(self, call: EngineCall, facts: Facts) -> Span:
        """The span of a call for several requests, in a trace of its own."""
        found = self._batches.get(call)
        if found is None:
            of_request = self._decided.result
            self._decided.trace_id, self._decided.result = random.getrandbits(128), _SAMPLED
            span = self._tracer.start_span("batch", _ROOT, start_time=self._ns(call.begun))
            self._decided.result = of_request
            span.set_attributes(
                {
                    "penstock.model.name": facts.model,
                    "penstock.model.version": facts.version,
                    "penstock.batch.size": call.rows,
                    "penstock.batch.requests": call.requests,
                }
            )
            found = self._batches[call] = _Open(span)
        return found.span

    def _ns(self, at: float) -> int:
        """Nanoseconds since the epoch of a moment of ``time.perf_counter``."""
        return self._epoch_ns + int(at * 1e9)

    def every_second(self) -> None:
        """Ends the spans of batches whose requests have had their time to link to them."""
        self._epoch_ns = _epoch_ns()
        for call, batch in list(self._batches.items()):
            batch.seconds += 1
            if (batch.seconds > 1 and call.ended > call.begun) or batch.seconds > _PATIENCE_S:
                self._end(call)

    def _end(self, call: EngineCall) -> None:
        self._batches.pop(call).span.end(self._ns(call.ended))

    def close(self) -> None:
        """Exports what waits."""
        for call in list(self._batches):
            self._end(call)
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _epoch_ns() -> int:
    return time.time_ns() - time.perf_counter_ns()


class _Open:
    """A batch's span that still gets links."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.seconds = 0


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
