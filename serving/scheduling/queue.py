"""The one way in to each model version, for every protocol: bounded, in order, never blocking the event loop.

``submit`` is called on the event loop and answers through a callback, on the event loop, exactly once. A request that
costs less than a thread switch is computed there too, together with those that came in the same turn of the loop; any
other is computed by the version's one thread, with those that wait when the engine gets free (``line``).

A request leaves as soon as its client has gone or its time is over: out of the line at once, and out of a call that the
others go on with. A call is interrupted when nobody waits for it any more, or when it takes longer than
``limits.execution``. ``tick`` looks ten times a second, so limits are kept to 0.1 s. An engine that does not come back
from an interrupt within ``GRACE_S`` is *hung*: all who wait are answered, and nobody is let in until it does.

A call of several that fails, for whatever reason, is made again for each by itself: one request that the engine cannot
bear never fails its neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from serving.engines.base import Interrupt, StreamingEngine
from serving.errors import Cancelled, DeadlineExceeded, EngineLost, InferenceFailed, NotReady, Overloaded, ServingError
from serving.loading import Loaded
from serving.metrics import ModelCounters
from serving.requests import Request, Response
from serving.scheduling import admission, batching
from serving.scheduling.admission import Admission, Pressure
from serving.scheduling.job import Batch, Done, Job, Result
from serving.scheduling.line import Line
from serving.scheduling.stream import Responses, Stream
from serving.settings import Settings
from serving.tensors import Array, Signature

GRACE_S = 2.0
"""How long an engine may take to come back after it was told to stop."""
_SMOOTHING = 0.2
_RETURN_S = 10.0
"""How long those wait whose call lost its engine, before they are tried by themselves."""
_LOOK_S = 0.02

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
        self.max_batch_size = loaded.max_rows if loaded.max_rows > 1 else 0
        """Most rows of several requests that are given to the engine at once; 0: requests are not joined."""
        self.max_delay_s = settings.batching.max_delay_s
        """How long a request may wait for others to be joined with."""
        self.streams = isinstance(loaded.engine, StreamingEngine)
        """Whether a request may have several responses; ``stream`` gives them."""
        self.hung = False
        """Whether the engine was told to stop and did not; nothing can be computed until it does."""
        self._admission = admission
        self._engine = loaded.engine
        self._inline_elements = loaded.inline_elements
        self._gathers = loaded.joins_inline
        self._limits = settings.limits
        self._limit_s = settings.limits.timeout_s
        self._execution_s = settings.limits.execution_s
        self._pending = 0
        self._pending_bytes = 0
        self._gathered = 0
        self._closed = False
        self._ending = threading.Event()
        self._max_rows = loaded.max_rows
        self._call_s = loaded.call_s
        self._pressure = Pressure()
        self._line = Line(loaded.max_rows, self.max_delay_s)
        self._running: Batch | None = None
        self._streaming: set[Job] = set()
        self._spoilt = 0
        self._withdraw = self._withdrawn
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        _log.info("model %s version %s: %s", name, version, loaded.finding)
        threading.Thread(target=self._work, name=f"infer-{name}", daemon=True).start()

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
        if self._pending == self._gathered:
            return self._admission.refusal()
        now = time.perf_counter()
        interval_s = admission.interval_s(self._call_s)
        refused = self._overload(size_bytes, self._pressure.stands(now, interval_s))
        if refused is None:
            return self._admission.refusal()
        self._pressure.refused(now, interval_s)
        return Overloaded(f"model '{self.name}' {refused}", self._wait_s())

    def _overload(self, size_bytes: int, pressed: bool) -> str | None:
        limits = self._limits
        if self._pending >= limits.max_pending:
            return f"has {self._pending} requests waiting, its limit; send again later, or raise limits.maxPending"
        if self._pending_bytes + size_bytes > limits.max_pending_bytes:
            return (
                f"has {self._pending_bytes} bytes waiting, this request has {size_bytes}; the limit is "
                f"{limits.max_pending_bytes}: send again later, or raise limits.maxPendingBytes"
            )
        if pressed and self._line.rows >= self._slack():
            return _TOO_MUCH
        return None

    def _slack(self) -> int:
        """How many rows may wait for a model that is pressed."""
        return self._max_rows if self._max_rows > 1 else admission.SLACK_CALLS

    def _wait_s(self) -> float:
        """How long a request that comes now would wait for its call, as far as can be told."""
        return self._call_s * (self._line.rows // self._max_rows + (self._running is not None))

    def submit(self, request: Request, received: float, timeout_s: float | None, done: Done) -> Job | None:
        """Begins a request; ``done`` gets it and its answer or error, on the event loop, perhaps before this returns.

        ``received`` is when its last byte came (``time.perf_counter``), ``timeout_s`` the client's own
        limit. None when it was answered at once; otherwise the job, which can be cancelled.
        """
        job = self._admitted(request, received, timeout_s, done, self._withdraw)
        inputs = job.inputs
        if self._pending == self._gathered and _size(inputs) <= self._inline_elements:
            if not self._gathers:
                self._enter(job)
                self._compute_here([job])
                return None
            self._enter(job)
            self._gathered += 1
            self._line.put(job, ring=False)
            if self._gathered == 1:
                self._loop.call_soon(self._compute_gathered)
            return job
        now = job.submitted
        if self._line.rows and now + (wait_s := self._wait_s()) > job.deadline > now:
            raise Overloaded(
                f"model '{self.name}' cannot answer within the time limit of the request: about {wait_s:.2g} s of work "
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
        job = Job(request, inputs, outputs, now, received + self._allowed_s(request, timeout_s), done, withdraw)
        job.size_bytes = size_bytes
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
        self._gathered = 0
        while (jobs := self._line.pick()) is not None:
            self._compute_here(jobs)

    def _compute_here(self, jobs: list[Job]) -> None:
        self._compute(jobs, None, lambda deliver, *arguments: deliver(*arguments))

    def _work(self) -> None:
        """In the version's thread: everything else."""
        while (jobs := self._line.take()) is not None:
            self._compute(jobs, Interrupt(), self._hand_over)
            del jobs  # their tensors must not live until somebody else comes
        self._engine.close()

    def _hand_over(self, deliver: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            self._loop.call_soon_threadsafe(functools.partial(deliver, *arguments))

    def _compute(self, jobs: list[Job], interrupt: Interrupt | None, post: Callable[..., None]) -> None:
        """One call of the engine for those whose time is not over; one for each where that fails."""
        now = time.perf_counter()
        late = [job for job in jobs if now > job.deadline and not job.answered]
        if late:
            post(self._expire, late)
        jobs = [job for job in jobs if now <= job.deadline and not job.answered]
        if not jobs:
            return
        batch = Batch(jobs, interrupt, now)
        names, outcome = self._called(batch)
        if len(jobs) > 1 and (isinstance(outcome, ServingError) or not batching.fits(jobs, outcome)):
            post(self._fell_apart, batch, outcome)
            for job in jobs:
                if isinstance(outcome, EngineLost):
                    self._await_engine(job.deadline)
                self._compute([job], None if interrupt is None else Interrupt(), post)
        else:
            post(self._deliver, batch, names, outcome)

    def _await_engine(self, deadline: float) -> None:
        """In the version's thread: gives an engine that was lost the time to come back."""
        deadline = min(deadline, time.perf_counter() + _RETURN_S)
        while self._engine.problem and time.perf_counter() < deadline and not self._ending.wait(_LOOK_S):
            pass

    def _called(self, batch: Batch) -> tuple[list[str], Sequence[Array] | ServingError]:
        inputs, names = batching.joined(batch.jobs)
        call = batch.call
        for job in batch.jobs:
            job.call = call
        if batch.interrupt is not None:
            self._running = batch
        try:
            return names, self._engine.infer(inputs, names, batch.interrupt)
        except Exception as error:
            return names, self._said(error)
        finally:
            call.ended = time.perf_counter()
            if batch.interrupt is not None:
                self._running = None

    def _said(self, error: Exception) -> ServingError:
        """What a client is told of it."""
        if isinstance(error, ServingError):
            return error
        _log.error("engine of model %s version %s failed", self.name, self.version, exc_info=error)
        return InferenceFailed(f"model '{self.name}' failed: {type(error).__name__}")

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
            return self._too_late("did not answer within")
        return self._said(error)

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

    def _deliver(self, batch: Batch, names: Sequence[str], outcome: Sequence[Array] | ServingError) -> None:
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

    def _fell_apart(self, batch: Batch, outcome: Sequence[Array] | ServingError) -> None:
        """A call of several failed; each will be computed by itself."""
        self._count(batch)
        self._spoilt += 1
        if self._spoilt == 1:
            what = outcome if isinstance(outcome, ServingError) else "an output has not as many rows as the inputs"
            _log.warning(
                "model %s version %s failed on %d requests together (%s); each is computed by itself, now and whenever "
                "this happens again",
                self.name,
                self.version,
                batch.call.requests,
                what,
            )

    def _expire(self, jobs: list[Job]) -> None:
        for job in jobs:
            if not job.answered:
                self._answer(job, self._too_late("waited for longer than"))

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
        batch = self._running
        if batch is not None and batch.is_abandoned():
            batch.stop(time.perf_counter())

    # The clock

    def tick(self, now: float) -> None:
        """Keeps time limits, and sends away those who wait in vain; called ten times a second."""
        for job in self._line.discard_all(lambda job: now > job.deadline):
            self._answer(job, self._too_late("waited for longer than"))
        for job in self._streaming:
            if now > job.deadline and job.interrupt is not None and not job.interrupt.fired:
                job.interrupt.fire()
        batch = self._running
        if batch is not None:
            self._watch(batch, now)
        if self._line.rows > self._slack() and self._pressure.stands(now, admission.interval_s(self._call_s)):
            for job in self._line.discard_beyond(self._slack()):
                self._answer(job, Overloaded(f"model '{self.name}' {_TOO_MUCH}", self._wait_s()))

    def _watch(self, batch: Batch, now: float) -> None:
        for job in batch.jobs:
            if not job.answered and now > job.deadline:
                self._answer(job, self._too_late("did not answer within"))
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
        self._ending.set()
        if self._pending:
            await self._idle.wait()
        self._line.close()

    # What is said

    def _too_late(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"model '{self.name}' {what} the time limit of the request (at most {self._limit_s:g} s, limits.timeout)"
        )

    def _too_long(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"model '{self.name}' was stopped after {self._execution_s:g} s, which is as long as its engine may take "
            "(limits.execution)"
        )

    def _not_coming_back(self) -> NotReady:
        return NotReady(f"model '{self.name}' version '{self.version}' is not ready: {_HUNG}")


_GONE = "the client went away before its answer"
_HUNG = "its engine was told to stop and does not"
_TOO_MUCH = "gets more requests than it can answer; send again later, or give it more replicas"


def _size(inputs: Mapping[str, Array]) -> int:
    return sum([array.size for array in inputs.values()])
