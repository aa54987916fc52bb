"""The one way in to each model version, for every protocol: bounded, in order, never blocking the event loop.

``submit`` is called on the event loop and answers through a callback, on the event loop, exactly once. A request that
costs less than a thread switch is computed there too, together with those that came in the same turn of the loop; any
other is computed by the version's one thread, with those that wait when the engine gets free (``line``).

A request leaves as soon as its client has gone or its time is over: out of the line at once, and out of a call that the
others go on with. A call is interrupted when nobody waits for it any more, or when it takes longer than
``limits.execution``. ``tick`` looks ten times a second, so limits are kept to 0.1 s. An engine that does not come back
from an interrupt within ``GRACE_S`` is *hung*: all who wait are answered, and nobody is let in until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from serving.engines import cpu
from serving.engines.base import StreamingEngine
from serving.errors import Cancelled, DeadlineExceeded, NotReady, Overloaded, ServingError
from serving.models.loading import Loaded
from serving.requests import Request, Response
from serving.scheduling import admission, batching
from serving.scheduling.admission import Admission, Bounds, Pressure
from serving.scheduling.job import Batch, Done, Job, Result
from serving.scheduling.line import Line
from serving.scheduling.stream import Responses, Stream
from serving.scheduling.worker import Outcome, Worker
from serving.settings import Settings
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array, Signature

GRACE_S = 2.0
"""How long an engine may take to come back after it was told to stop."""
_SMOOTHING = 0.2

_log = logging.getLogger(__name__)


class ModelQueue:
    """The way to one loaded version of one model. All methods are for the event loop's thread."""

    def __init__(
        self,
        name: str,
        version: str,
        loaded: Loaded,
        counters: ModelCounters,
        settings: Settings,
        admission: Admission,
    ) -> None:
        self.name = name
        self.version = version
        self.counters = counters
        self.signature: Signature = loaded.engine.signature.labelled(settings.labels)
        self.platform = loaded.engine.platform
        self.max_batch_size = loaded.max_batch_size
        """Most rows of a batch, as Triton's configuration says it; 0: the first dimension is none of rows."""
        self.joins = loaded.max_rows > 1
        """Whether several requests are given to the engine at once."""
        self.max_delay_s = settings.batching.max_delay_s
        """How long a request may wait for others to be joined with."""
        self.streams = isinstance(loaded.engine, StreamingEngine)
        """Whether a request may have several responses; ``stream`` gives them."""
        self.hung = False
        """Whether the engine was told to stop and did not; nothing can be computed until it does."""
        self._admission = admission
        self._engine = loaded.engine
        self._inline_elements = loaded.inline_elements or -1  # then not even inputs without elements
        self._gathers = loaded.joins_inline
        self._bounds = Bounds(settings.limits.max_pending, settings.limits.max_pending_bytes, loaded.max_rows)
        self._limit_s = settings.limits.timeout_s
        self._execution_s = settings.limits.execution_s
        self._pending = 0
        self._pending_bytes = 0
        self._gathered: list[Job] = []
        self._closed = False
        self._max_rows = loaded.max_rows
        self._call_s = loaded.call_s
        self._pressure = Pressure()
        self._line = Line(loaded.max_rows, self.max_delay_s)
        self._streaming: set[Job] = set()
        self._spoilt = 0
        self._withdraw = self._withdrawn
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        shares_cpu = self.joins and cpu.limit() == 1
        self._worker = Worker(name, loaded.engine, self._line, self, self._loop, shares_cpu)

    @property
    def problem(self) -> str:
        """Why it cannot answer now; empty when it can."""
        return _HUNG if self.hung else self._engine.problem

    # Coming in

    def refusal(self, size_bytes: int = 0) -> ServingError | None:
        """Why a further request of this size would not be taken now; None when it would.

        It needs nothing of the request, so it can be asked as soon as its headers are there.
        """
        if self._closed:
            return NotReady(f"model '{self.name}' version '{self.version}' is being unloaded")
        if self.hung:
            return self._not_coming_back()
        if self._pending == len(self._gathered):
            return self._admission.refusal()
        now = time.perf_counter()
        interval_s, wait_s = admission.interval_s(self._call_s), self._wait_s()
        pressed = self._pressure.stands(now, interval_s)
        refused = self._bounds.refusal(self._pending, self._pending_bytes, size_bytes, self._line.rows, wait_s, pressed)
        if refused is None:
            return self._admission.refusal()
        self._pressure.refused(now, interval_s)
        return Overloaded(f"model '{self.name}' {refused}", wait_s)

    def _wait_s(self) -> float:
        """How long a request that comes now would wait for its call, as far as can be told."""
        return self._call_s * (self._line.rows // self._max_rows + (self._worker.running is not None))

    def submit(self, request: Request, received: float, timeout_s: float | None, done: Done) -> Job | None:
        """Begins a request; ``done`` gets it and its answer or error, on the event loop, perhaps before this returns.

        ``received`` is when its last byte came (``time.perf_counter``), ``timeout_s`` the client's own
        limit. None when it was answered at once; otherwise the job, which can be cancelled.
        """
        job = self._admitted(request, received, timeout_s, done, self._withdraw)
        inputs = job.inputs
        if self._pending == len(self._gathered) and _size(inputs) <= self._inline_elements:
            if not self._gathers:
                self._enter(job)
                self._worker.compute_here([job])
                return None
            self._enter(job)
            self._gathered.append(job)
            if len(self._gathered) == 1:
                self._loop.call_soon(self._compute_gathered)
            return job
        now = job.submitted
        if self._line.rows and now + (wait_s := self._wait_s()) > job.deadline > now:
            raise Overloaded(
                f"model '{self.name}' cannot answer within {self._limit(job)}: about {wait_s:.2g} s of work "
                "wait before it; send again later",
                wait_s,
            )
        self._enter(job)
        self._line.put(job)
        return job

    def stream(self, request: Request, received: float, timeout_s: float | None) -> Stream:
        """Begins a request of a model that ``streams``; its time limit is that of the last response."""
        assert isinstance(self._engine, StreamingEngine)
        job = self._admitted(request, received, timeout_s, lambda job, result: None, self._stop_stream)
        self._enter(job)
        stream = Stream(job, self._responses(self._engine, job), self._explained, self._streamed)
        self._streaming.add(job)
        return stream

    def _admitted(
        self,
        request: Request,
        received: float,
        timeout_s: float | None,
        done: Done,
        withdraw: Callable[[Job], None],
    ) -> Job:
        now = time.perf_counter()
        self.counters.compute_input_s += now - received
        size_bytes = sum([tensor.array.nbytes for tensor in request.inputs])
        if self._admission.requests or self._closed or self.hung:
            refused = self.refusal(size_bytes)
            if refused is not None:
                raise refused
        inputs = self.signature.bind(self.name, request.inputs)
        outputs = self.signature.wanted(self.name, [wanted.name for wanted in request.outputs])
        allowed_s = self._allowed_s(request, timeout_s)
        job = Job(request, inputs, outputs, now, received + allowed_s, done, withdraw)
        job.size_bytes = size_bytes
        job.allowed_s = allowed_s
        job.rows, job.key = batching.rows_and_key(inputs, self._max_rows)
        return job

    def _allowed_s(self, request: Request, timeout_s: float | None) -> float:
        limit_s = self._limit_s
        if timeout_s is not None and timeout_s < limit_s:
            limit_s = timeout_s
        if request.timeout_s is not None and request.timeout_s < limit_s:
            limit_s = request.timeout_s
        return limit_s

    def _enter(self, job: Job) -> None:
        self._pending += 1
        self._pending_bytes += job.size_bytes
        self.counters.pending = self._pending
        self._admission.requests += 1

    # Being computed

    def _compute_gathered(self) -> None:
        """On the event loop: those that came in the same turn of it."""
        gathered, self._gathered = self._gathered, []
        if len(gathered) == 1:
            self._worker.compute_here(gathered)
            return
        for job in gathered:
            if not job.answered:
                self._line.put(job, ring=False)
        while (jobs := self._line.pick()) is not None:
            self._worker.compute_here(jobs)

    # Being streamed

    def _responses(self, engine: StreamingEngine, job: Job) -> Responses:
        assert job.interrupt is not None
        names = [spec.name for spec in job.outputs]
        with contextlib.closing(engine.stream(job.inputs, names, job.interrupt)) as computed:
            for arrays in computed:
                yield Response(self.name, self.version, job.request.id, batching.parted([job], names, arrays)[0])

    def _explained(self, job: Job, error: Exception) -> ServingError:
        if job.gone:
            return Cancelled(_GONE)
        if job.interrupt is not None and job.interrupt.fired:
            return self._too_late(job, "did not answer within")
        return self._worker.said(error)

    def _stop_stream(self, job: Job) -> None:
        job.gone = True
        if job.interrupt is not None:
            job.interrupt.fire()

    def _streamed(self, job: Job) -> None:
        self._streaming.discard(job)
        if job.ended > job.begun:
            self.counters.executed(job.rows, job.ended - job.begun, job.ended)
        self._answer(job, Cancelled("a stream has told its result itself"))

    # Going out

    def computed(self, batch: Batch, names: Sequence[str], outcome: Outcome) -> None:
        """A call has ended (``Told``)."""
        self._count(batch)
        jobs = batch.jobs
        if isinstance(outcome, ServingError):
            error = outcome if batch.stopped is None else self._too_long()
            for job in jobs:
                if not job.answered:
                    self._answer(job, error)
            return
        for job, tensors in zip(jobs, batching.parted(jobs, names, outcome), strict=True):
            if not job.answered:
                self._answer(job, Response(self.name, self.version, job.request.id, tensors))

    def fell_apart(self, batch: Batch, error: ServingError | None) -> None:
        """A call of several could not be used; each is computed by itself (``Told``)."""
        self._count(batch)
        self._spoilt += 1
        if self._spoilt == 1:
            what = error or "an output has another number of rows than the inputs"
            _log.warning(
                "model %s version %s failed on %d requests together (%s); each is computed by itself, now and whenever "
                "this happens again",
                self.name,
                self.version,
                batch.call.requests,
                what,
            )

    def too_late(self, jobs: Sequence[Job]) -> None:
        """The time of these was over before their call began (``Told``)."""
        for job in jobs:
            if not job.answered:
                self._answer(job, self._too_late(job, "waited for longer than"))

    def _count(self, batch: Batch) -> None:
        call = batch.call
        took_s = call.ended - call.begun
        self._call_s += _SMOOTHING * (took_s - self._call_s)
        self.hung = False
        for job in batch.jobs:
            job.begun, job.ended = call.begun, call.ended
        self.counters.executed(call.rows, took_s, call.ended)

    def _answer(self, job: Job, result: Result) -> None:
        job.answered = True
        self._pending -= 1
        self._pending_bytes -= job.size_bytes
        self._admission.requests -= 1
        counters = self.counters
        counters.pending = self._pending
        if self._closed and self._pending == 0:
            self._idle.set()
        counters.queue_s += job.begun - job.submitted
        counters.compute_infer_s += job.ended - job.begun
        job.done(job, result)

    def _withdrawn(self, job: Job) -> None:
        """Its client has gone."""
        self._line.discard(job)
        self._answer(job, Cancelled(_GONE))
        batch = self._worker.running
        if batch is not None and batch.is_abandoned():
            batch.stop(time.perf_counter())

    # The clock

    def tick(self, now: float) -> None:
        """Keeps time limits, and sends away those who wait in vain; called ten times a second."""
        for job in self._line.discard_all(lambda job: now > job.deadline):
            self._answer(job, self._too_late(job, "waited for longer than"))
        for job in self._streaming:
            if now > job.deadline and job.interrupt is not None and not job.interrupt.fired:
                job.interrupt.fire()
        batch = self._worker.running
        if batch is not None:
            self._watch(batch, now)
        slack = self._bounds.slack
        if self._line.rows > slack and self._pressure.stands(now, admission.interval_s(self._call_s)):
            for job in self._line.discard_beyond(slack):
                self._answer(job, Overloaded(f"model '{self.name}' {admission.TOO_MUCH}", self._wait_s()))

    def _watch(self, batch: Batch, now: float) -> None:
        for job in batch.jobs:
            if not job.answered and now > job.deadline:
                self._answer(job, self._too_late(job, "did not answer within"))
        if batch.is_abandoned() or now - batch.call.begun > self._execution_s:
            batch.stop(now)
        if batch.stopped is not None and now - batch.stopped > GRACE_S and not self.hung:
            self.hung = True
            _log.error("the engine of model %s version %s does not stop; it is not ready", self.name, self.version)
            for job in batch.jobs:
                if not job.answered:
                    self._answer(job, self._too_long())
            for job in self._line.discard_all(lambda _: True):
                self._answer(job, self._not_coming_back())

    async def close(self) -> None:
        """Takes no more requests, waits for those it has, and frees the engine."""
        self._closed = True
        if self._pending:
            await self._idle.wait()
        self._worker.end()

    # What is said

    def _too_late(self, job: Job, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"model '{self.name}' {what} {self._limit(job)}")

    def _limit(self, job: Job) -> str:
        if job.allowed_s == self._limit_s:
            return f"the time limit of the request (at most {self._limit_s:g} s, limits.timeout)"
        if job.allowed_s == job.request.timeout_s:
            return f"the time limit of the request ({job.allowed_s * 1e6:.0f} microseconds, its parameter timeout)"
        return f"the time limit of the request ({job.allowed_s:.3g} s, the call's grpc-timeout)"

    def _too_long(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"model '{self.name}' was stopped after {self._execution_s:g} s, which is as long as its engine may take "
            "(limits.execution)"
        )

    def _not_coming_back(self) -> NotReady:
        return NotReady(f"model '{self.name}' version '{self.version}' is not ready: {_HUNG}")


_GONE = "the client went away before its answer"
_HUNG = "its engine was told to stop and does not"


def _size(inputs: Mapping[str, Array]) -> int:
    return sum([array.size for array in inputs.values()])
