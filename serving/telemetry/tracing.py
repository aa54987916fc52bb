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
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serving.errors import GrpcCode, ServingError
from serving.observing import Call, Facts
from serving.telemetry import records

_NEVER_SAMPLED = "remoteParentNotSampled:AlwaysOffSampler"
_GRPC_FAULTS = {2, 4, 12, 13, 14, 15}
"""Codes that the semantic conventions call errors of a server; the others are the client's."""
_W3C = TraceContextTextMapPropagator()
_ROOT = Context()


class _Decided(Sampler, RandomIdGenerator):
    """Gives the SDK the decision and the trace id that a request already has."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.result = SamplingResult(Decision.RECORD_AND_SAMPLE)

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

    def ended(self, call: Call, received: float, ended: float, error: ServingError | None) -> str:
        """Makes the spans of a request that is to have some, and gives its trace id; empty where nothing traces it."""
        parent = call.header("traceparent")
        context, trace_id = _ROOT, random.getrandbits(128)
        if parent is not None:
            if self._drops_unsampled_parents and parent.endswith("-00"):
                return records.trace_id(parent)
            carrier = {"traceparent": parent, "tracestate": call.header("tracestate") or ""}
            context = _W3C.extract(carrier, _ROOT)
        span_name = "infer"
        result = self._sampler.should_sample(context, trace_id, span_name, SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return "" if parent is None else records.trace_id(parent)
        self._decided.trace_id, self._decided.result = trace_id, result
        return self._spans(call.facts(), context, received, ended, error)

    def _spans(self, facts: Facts, context: Context, received: float, ended: float, error: ServingError | None) -> str:
        zero_ns = time.time_ns() - time.perf_counter_ns()

        def ns(at: float) -> int:
            return zero_ns + int(at * 1e9)

        job = facts.job
        computed = job is not None and job.ended > job.begun
        name, attributes = _named(facts, error)
        if job is not None:
            attributes["penstock.queue.duration"] = (job.begun if computed else ended) - job.submitted
        if job is not None and computed:
            attributes["penstock.batch.size"] = records.rows(job)
        server = self._tracer.start_span(name, context, SpanKind.SERVER, start_time=ns(received))
        server.set_attributes(attributes)  # the SDK takes those of a beginning span from its sampler
        if error is not None and _is_fault(facts, error):
            server.set_status(Status(StatusCode.ERROR, type(error).__name__))
        if job is not None:
            inside = set_span_in_context(server, _ROOT)
            self._child("queue", inside, ns(job.submitted), ns(job.begun if computed else ended))
            if computed:
                self._child("compute", inside, ns(job.begun), ns(job.ended))
        server.end(ns(ended))
        return f"{server.get_span_context().trace_id:032x}"

    def _child(self, name: str, inside: Context, begun_ns: int, ended_ns: int) -> None:
        self._tracer.start_span(name, inside, start_time=begun_ns).end(ended_ns)

    def close(self) -> None:
        """Exports what waits."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


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
