"""Answers kept for equal requests, of models whose owners say that they always answer equal requests alike.

What is equal is decided by content: the loaded version (a swap is another one, so nothing of the old is found again),
the names of the outputs asked for, and shape and bytes of every input, as their SHA-256. It must not be cheaper than
that: who could make two requests with one key could put answers under other people's requests. With the instructions
of today's CPUs it costs 0.3 ms for 602 KB and 1 µs for a small request (BLAKE2b: 0.7 ms), on the event loop.

All models of a process share a number of bytes; what was asked for longest ago goes first. Equal requests that come
while the first is computed are computed too: each has a client of its own who may leave and a time limit of its own,
and a batch makes them cheap.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from serving.models.loading import Loaded
from serving.protocols import elements
from serving.requests import Request, Response
from serving.scheduling import Admission, Done, Job, ModelQueue, Result
from serving.settings import Settings
from serving.telemetry.metrics import ModelCounters
from serving.tensors import Array, Tensor, TensorSpec

_OVERHEAD_BYTES = 512
"""What an answer takes beside its tensors, and an element of text beside its bytes times eight."""

Key = tuple[int, bytes]


class Answers:
    """Outputs by key, no more than so many bytes of them. For the event loop's thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: OrderedDict[Key, tuple[int, Sequence[Tensor]]] = OrderedDict()
        self._owners = itertools.count()

    def owner(self) -> int:
        """What sets the keys of one queue apart from those of all others."""
        return next(self._owners)

    def find(self, key: Key) -> Sequence[Tensor] | None:
        """The outputs kept under the key."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[1]

    def keep(self, key: Key, outputs: Sequence[Tensor]) -> None:
        """Keeps a copy, unless it is larger than everything there may be: outputs are parts of a batch's."""
        size = sum(_size(tensor) for tensor in outputs) + _OVERHEAD_BYTES
        if size > self.limit_bytes:
            return
        self._drop(key)
        self._kept[key] = (size, [_copied(tensor) for tensor in outputs])
        self.bytes += size
        while self.bytes > self.limit_bytes:
            self._drop(next(iter(self._kept)))

    def forget(self, owner: int) -> None:
        """Drops everything of one queue."""
        for key in [key for key in self._kept if key[0] == owner]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self.bytes -= dropped[0]


class CachedJob(Job):
    """A request whose answer was there before it."""

    __slots__ = ()
    cached = True


class AnsweringQueue(ModelQueue):
    """A queue that answers by itself what it has answered before."""

    def __init__(
        self,
        name: str,
        version: str,
        loaded: Loaded,
        counters: ModelCounters,
        settings: Settings,
        admission: Admission,
        answers: Answers,
    ) -> None:
        super().__init__(name, version, loaded, counters, settings, admission)
        self._answers = answers
        self._owner = answers.owner()

    def submit(self, request: Request, received: float, timeout_s: float | None, done: Done) -> Job | None:
        """As that of any queue; a request that was answered before needs neither the engine nor a place in the line."""
        begun = time.perf_counter()
        inputs = self.signature.bind(self.name, request.inputs)
        outputs = self.signature.wanted(self.name, [wanted.name for wanted in request.outputs])
        key = (self._owner, digest(inputs, outputs))
        found = self._answers.find(key)
        now = time.perf_counter()
        counters = self.counters
        if found is None:
            counters.cache_misses += 1
            counters.cache_miss_s += now - begun
            return super().submit(request, received, timeout_s, self._keeping(key, done))
        counters.cache_hits += 1
        counters.cache_hit_s += now - begun
        counters.compute_input_s += begun - received
        job = CachedJob(request, inputs, outputs, now, now, done, self._withdraw)
        job.answered = True
        done(job, Response(self.name, self.version, request.id, found))
        return None

    async def close(self) -> None:
        """As that of any queue; its answers go with it."""
        await super().close()
        self._answers.forget(self._owner)

    def _keeping(self, key: Key, done: Done) -> Done:
        def keep(job: Job, result: Result) -> None:
            if isinstance(result, Response):
                self._answers.keep(key, result.outputs)
            done(job, result)

        return keep


def digest(inputs: Mapping[str, Array], outputs: Sequence[TensorSpec]) -> bytes:
    """What stands for a request's content, given in the signature's order; datatypes are the signature's."""
    found = hashlib.sha256(b"%d;" % len(outputs))
    for spec in outputs:
        found.update(b"%d:%b" % (len(spec.name), spec.name.encode()))
    for name, array in inputs.items():
        found.update(struct.pack(f"<q{array.ndim}q", array.ndim, *array.shape))
        if array.dtype == np.object_:
            found.update(elements.to_bytes(Tensor(name, "BYTES", array)))
        else:
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()


def _size(tensor: Tensor) -> int:
    if tensor.datatype != "BYTES":
        return tensor.array.nbytes
    return sum(len(element) for element in tensor.array.ravel()) + tensor.array.size * (_OVERHEAD_BYTES // 8)


def _copied(tensor: Tensor) -> Tensor:
    array = tensor.array.copy()
    array.flags.writeable = False
    return Tensor(tensor.name, tensor.datatype, array)
