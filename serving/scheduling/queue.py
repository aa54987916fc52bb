"""One queue before each model version, for every protocol: bounded, in order, never blocking the event loop.

``submit`` is called on the event loop and answers through a callback. A request that costs less than
a thread switch runs at once, on the loop; any other goes to the version's one thread, first come,
first served. ``_take`` is where requests will be joined to batches: it decides what the engine is
given next, from what waits when the engine is free.

A request is dropped before the engine sees it when its client has gone or its time is over. One that
the engine is working on is interrupted (``tick``, ten times a second, so a limit is kept to 0.1 s).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence

from serving.engines.base import Interrupt, StreamingEngine
from serving.errors import Cancelled, DeadlineExceeded, InferenceFailed, NotReady, Overloaded, ServingError
from serving.loading import Loaded
from serving.metrics import ModelCounters
from serving.requests import Request, Response
from serving.scheduling.admission import Admission
from serving.scheduling.job import Done, Job, Result
from serving.scheduling.stream import Responses, Stream
from serving.settings import Settings
from serving.tensors import Array, Signature, Tensor

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
        self.max_batch_size = 0
        """Most rows of several requests that are given to the engine at once; 0: requests are not joined."""
        self.max_delay_s = 0.0
        """How long a request may wait for others to be joined with."""
        self.streams = isinstance(loaded.engine, StreamingEngine)
        """Whether a request may have several responses; ``stream`` gives them."""
        self._admission = admission
        self._engine = loaded.engine
        self._inline_elements = loaded.inline_elements
        self._max_pending = settings.limits.max_pending
        self._max_pending_bytes = settings.limits.max_pending_bytes
        self._pending_bytes = 0
        self._limit_s = settings.limits.timeout_s
        self._pending = 0
        self._closed = False
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._running: Job | None = None
        self._streaming: set[Job] = set()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        threading.Thread(target=self._work, name=f"infer-{name}", daemon=True).start()

    @property
    def problem(self) -> str:
        """Why it cannot answer now; empty when it can."""
        return self._engine.problem

    def refusal(self, size_bytes: int = 0) -> ServingError | None:
        """Why a further request of this size would not be taken now; None when it would.

        It needs nothing of the request, so it can be asked as soon as its headers are there.
        """
        if self._closed:
            return NotReady(f"model '{self.name}' version '{self.version}' is being unloaded")
        if self._pending >= self._max_pending:
            return Overloaded(
                f"model '{self.name}' has {self._pending} requests waiting, its limit; "
                "send again later, or raise limits.maxPending"
            )
        if self._pending and self._pending_bytes + size_bytes > self._max_pending_bytes:
            return Overloaded(
                f"model '{self.name}' has {self._pending_bytes} bytes waiting, this request has {size_bytes}; the "
                f"limit is {self._max_pending_bytes}: send again later, or raise limits.maxPendingBytes"
            )
        return self._admission.refusal()

    def submit(self, request: Request, received: float, timeout_s: float | None, done: Done) -> Job | None:
        """Begins a request; ``done`` gets it and its answer or error, on the event loop, perhaps before this returns.

        ``received`` is when its last byte came (``time.perf_counter``), ``timeout_s`` the client's own
        limit. None when it was answered at once; otherwise the job, which can be cancelled.
        """
        job = self._admitted(request, received, timeout_s, done)
        if self._pending == 0 and sum([array.size for array in job.inputs.values()]) <= self._inline_elements:
            self._finish(job, self._infer(job, None))
            return None
        self._enter(job)
        self._waiting.put(job)
        return job

    def stream(self, request: Request, received: float, timeout_s: float | None) -> Stream:
        """Begins a request of a model that ``streams``; its time limit is that of the last response."""
        assert isinstance(self._engine, StreamingEngine)
        job = self._admitted(request, received, timeout_s, lambda job, result: None)
        self._enter(job)
        stream = Stream(job, self._responses(self._engine, job), self._explained, self._streamed)
        self._streaming.add(job)
        return stream

    def _admitted(self, request: Request, received: float, timeout_s: float | None, done: Done) -> Job:
        now = time.perf_counter()
        self.counters.compute_input_s += now - received
        size_bytes = sum([tensor.array.nbytes for tensor in request.inputs])
        if (refused := self.refusal(size_bytes)) is not None:
            raise refused
        inputs = self.signature.bind(self.name, request.inputs)
        outputs = self.signature.wanted(self.name, [wanted.name for wanted in request.outputs])
        limit_s = self._limit_s if timeout_s is None else min(timeout_s, self._limit_s)
        job = Job(request, inputs, outputs, now, received + limit_s, done)
        job.size_bytes = size_bytes
        return job

    def _enter(self, job: Job) -> None:
        self._pending += 1
        self._pending_bytes += job.size_bytes
        self._admission.requests += 1
        self.counters.pending = self._pending
        self._idle.clear()

    def tick(self, now: float) -> None:
        """Interrupts running inferences whose time is over."""
        running = self._running
        for job in (*self._streaming, running) if running is not None else tuple(self._streaming):
            if now > job.deadline and job.interrupt is not None and not job.interrupt.fired:
                job.interrupt.fire()

    async def close(self) -> None:
        """Takes no more requests, waits for those it has, and frees the engine."""
        self._closed = True
        await self._idle.wait()
        self._waiting.put(None)

    def _work(self) -> None:
        while (job := self._take()) is not None:
            job.interrupt = Interrupt()
            self._running = job
            result = self._infer(job, job.interrupt)
            self._running = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
                self._loop.call_soon_threadsafe(self._leave, job, result)
        self._engine.close()

    def _take(self) -> Job | None:
        """What the engine is given next; None when the queue is closed."""
        return self._waiting.get()

    def _infer(self, job: Job, interrupt: Interrupt | None) -> Result:
        job.begun = job.ended = time.perf_counter()
        if job.gone:
            return Cancelled("the client went away before its request was begun")
        if job.begun > job.deadline:
            return self._too_late("waited for longer than")
        try:
            arrays = self._engine.infer(job.inputs, [spec.name for spec in job.outputs], interrupt)
        except Exception as error:
            return self._explained(job, error)
        finally:
            job.ended = time.perf_counter()
        return self._response(job, arrays)

    def _responses(self, engine: StreamingEngine, job: Job) -> Responses:
        assert job.interrupt is not None
        names = [spec.name for spec in job.outputs]
        with contextlib.closing(engine.stream(job.inputs, names, job.interrupt)) as computed:
            for arrays in computed:
                yield self._response(job, arrays)

    def _explained(self, job: Job, error: Exception) -> ServingError:
        if job.interrupt is not None and job.interrupt.fired:
            return self._interrupted(job)
        if isinstance(error, ServingError):
            return error
        _log.error("engine of model %s version %s failed", self.name, self.version, exc_info=error)
        return InferenceFailed(f"model '{self.name}' failed: {type(error).__name__}")

    def _streamed(self, job: Job) -> None:
        self._streaming.discard(job)
        self._leave(job, Cancelled("a stream has told its result itself"))

    def _response(self, job: Job, arrays: Sequence[Array]) -> Response:
        tensors = [Tensor(spec.name, spec.datatype, array) for spec, array in zip(job.outputs, arrays, strict=True)]
        return Response(self.name, self.version, job.request.id, tensors)

    def _interrupted(self, job: Job) -> ServingError:
        if job.gone:
            return Cancelled("the client went away before its answer")
        return self._too_late("did not answer within")

    def _too_late(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"model '{self.name}' {what} the time limit of the request (at most {self._limit_s:g} s, limits.timeout)"
        )

    def _leave(self, job: Job, result: Result) -> None:
        self._pending -= 1
        self._pending_bytes -= job.size_bytes
        self._admission.requests -= 1
        self.counters.pending = self._pending
        if self._pending == 0:
            self._idle.set()
        self._finish(job, result)

    def _finish(self, job: Job, result: Result) -> None:
        counters = self.counters
        if job.ended > job.begun:
            counters.queue_s += job.begun - job.submitted
            counters.compute_infer_s += job.ended - job.begun
            shape = job.request.inputs[0].array.shape
            counters.executed(shape[0] if shape else 1, job.ended - job.begun, job.ended)
        job.done(job, result)
