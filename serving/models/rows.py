"""Whether a model treats the rows of its inputs one by one, so that requests may share a call of the engine.

A first dimension that is free does not say so: it may be time, or a normalisation may run over it, and then joining
requests would give each an answer made of all. So it is tried when the model is loaded. Rows of random values are
computed by themselves and together. They are of very different size, because a tensor that is quantised as a whole
treats a small row well when it is alone and badly beside a large one; there are requests of one row and of two, since
an answer must also have as many rows as its request. Only three outcomes are told apart: rows do not influence each
other, they do, or it cannot be said (the model refuses random inputs, answers everything alike, or gives another
answer each time).

Joining is worth it where four rows together cost less than four calls. They do for most models; a convolution of a
large image on a CPU costs as much, and then a batch only makes everybody wait for the slowest. The cost of a call is
its processor time in all threads: how long it takes by the clock depends on who else uses the machine, by more than
there is to decide on. A model that spreads over more threads with more rows, and saves no work, gains nothing so.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from serving.engines.base import Engine, Interrupt
from serving.errors import ServingError
from serving.tensors import DTYPES, Array, TensorSpec

WORTH = 1.25
"""Four rows together must take this many times less than four calls."""
SLOW_S = 0.5
"""A model that takes longer for a row is not tried: loading would take too long."""
_SEED = 5
_FREE_SIZES = (3, 16, 64)
"""What a free dimension other than the first may be: the first of these that the model takes."""
_TRIALS = ((1, 0.5), (2, 1.0), (1, 40.0))
"""Rows and size of values of each request."""
_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-6}
"""By the bytes of a floating-point output, of its largest value: calls of another size round differently."""
_TIMINGS = 5

Inputs = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Rows:
    """What was found."""

    independent: bool | None
    """None: it cannot be said."""
    finding: str
    """A sentence about the model, from its verb on."""
    gain: float = 1.0
    """How many times less four rows take together than by themselves."""
    sample: Mapping[str, Array] | None = None
    """One row that the model takes."""


@dataclasses.dataclass(frozen=True)
class Took:
    """What one call took."""

    wall_s: float
    processor_s: float

    @property
    def alone_s(self) -> float:
        """At most how long it takes on a machine where nobody else is in its way."""
        return min(self.wall_s, self.processor_s)


@dataclasses.dataclass(frozen=True)
class Clocks:
    """What calls are timed by."""

    wall: Callable[[], float] = time.perf_counter
    processor: Callable[[], float] = time.process_time
    """Of all threads of this process."""

    def without_processor(self) -> Clocks:
        """For an engine that computes elsewhere: only the wall's clock tells of it."""
        return Clocks(self.wall, self.wall)

    def timed(self, call: Callable[[], list[Array]]) -> tuple[list[Array], Took]:
        """What the call gives and took."""
        wall, processor = self.wall(), self.processor()
        outputs = call()
        return outputs, Took(processor_s=self.processor() - processor, wall_s=self.wall() - wall)


REAL = Clocks()


def gain(rows: int, one: Sequence[Took], together: Sequence[Took]) -> float:
    """How many times less ``rows`` rows take together than by themselves, from several calls of each.

    The least of each counts: what a call takes beyond that is not its own. A processor clock that ticks too coarsely
    for such calls (10 ms in some sandboxes) shows nothing, and the wall's has to do.
    """
    one_s, together_s = min(took.processor_s for took in one), min(took.processor_s for took in together)
    if one_s <= 0 or together_s <= 0:
        one_s, together_s = min(took.wall_s for took in one), min(took.wall_s for took in together)
    return rows * one_s / max(together_s, 1e-9)


def tried(engine: Engine, interrupt: Interrupt, clocks: Clocks = REAL) -> Rows:
    """What the model does with rows. After ``interrupt`` fired, nothing can be said."""
    signature = engine.signature
    for spec in signature.inputs:
        if not spec.shape or spec.shape[0] != -1:
            return Rows(False, f"takes input '{spec.name}' as {list(spec.shape)}, without a free first dimension")
    for spec in signature.outputs:
        if not spec.shape or spec.shape[0] != -1:
            return Rows(None, f"gives output '{spec.name}' as {list(spec.shape)}, without a free first dimension")
    if engine.may_loop:
        return Rows(None, "has a loop, so that one row can take as long as it likes")
    refusal: ServingError | None = None
    for size in _FREE_SIZES:
        try:
            return _tried(engine, interrupt, clocks, size)
        except ServingError as error:
            refusal = error
        if all(-1 not in spec.shape[1:] for spec in signature.inputs) or interrupt.fired:
            break
    if interrupt.fired:
        return Rows(None, "takes too long to try what it does with several rows")
    return Rows(None, f"refuses random inputs ({refusal})")


def _tried(engine: Engine, interrupt: Interrupt, clocks: Clocks, size: int) -> Rows:
    signature, drawing = engine.signature, random.Random(_SEED)
    names = [spec.name for spec in signature.outputs]

    def infer(inputs: Inputs) -> tuple[list[Array], Took]:
        return clocks.timed(lambda: engine.infer(inputs, names, interrupt))

    requests = [
        {spec.name: _drawn(drawing, spec, rows, size, scale) for spec in signature.inputs} for rows, scale in _TRIALS
    ]
    one, took = infer(requests[0])
    if took.alone_s > SLOW_S:
        return Rows(None, f"takes {took.alone_s:.1f} s for a row, too long to try what it does with several")
    alone = [one, *[infer(request)[0] for request in requests[1:]]]
    together = {spec.name: np.concatenate([request[spec.name] for request in requests]) for spec in signature.inputs}
    joined, joined_took = infer(together)
    again, again_took = infer(requests[0])
    total = sum(rows for rows, _ in _TRIALS)
    for position, name in enumerate(names):
        if not _same(again[position], alone[0][position]):
            return Rows(None, f"gives another answer each time (output '{name}')")
        at = 0
        for (rows, _), answer in zip(_TRIALS, alone, strict=True):
            part, by_itself = joined[position][at : at + rows], answer[position]
            if joined[position].shape[:1] != (total,) or by_itself.shape[:1] != (rows,):
                return Rows(False, f"gives output '{name}' with another number of rows than its inputs have")
            if not _same(part, by_itself):
                return Rows(False, f"mixes rows: output '{name}' of one changes with those beside it")
            at += rows
    if all(_same(alone[0][position], alone[-1][position]) for position in range(len(names))):
        return Rows(None, "answers random inputs alike, so nothing can be told from it")
    by_one, by_all = [took, again_took], [joined_took]
    while len(by_all) <= _TIMINGS and by_all[-1].alone_s <= SLOW_S:
        by_one.append(infer(requests[0])[1])
        by_all.append(infer(together)[1])
    gained = gain(total, by_one, by_all)
    return Rows(True, f"computes rows one by one, {total} together in {gained:.2g} times less", gained, requests[0])


def _drawn(drawing: random.Random, spec: TensorSpec, rows: int, size: int, scale: float) -> Array:
    shape = (rows, *(size if known == -1 else known for known in spec.shape[1:]))
    dtype = DTYPES[spec.datatype]
    # Not numpy.random: its import takes 6 ms, the trials of a small model one.
    drawn = np.frombuffer(drawing.randbytes(4 * math.prod(shape)), np.uint32).reshape(shape)
    if spec.datatype == "BYTES":
        array = np.empty(shape, np.object_)
        array.reshape(-1)[:] = [b"%d" % number for number in drawn.reshape(-1) % 1000]
        return array
    if dtype.kind == "f":
        return ((drawn / 2**31 - 1) * scale).astype(dtype)
    # Small numbers: a model that looks them up in a table has at least so many entries.
    return (drawn % (2 if dtype.kind == "b" else 8)).astype(dtype)


def _same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    finite = np.abs(expected[np.isfinite(expected)])
    largest = float(finite.max()) if finite.size else 0.0
    tolerance = _TOLERANCE[found.dtype.itemsize] * largest
    return bool(np.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True))
