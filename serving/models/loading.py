"""From an artifact to an engine that has proved it can answer: load, try it under the time limit, warm it up.

The trial inference refuses a model that never ends before anybody can ask it anything, and it
measures. A model that answered in less than ``INLINE_S`` is cheaper to run on the event loop than to
hand to a thread and back (about 50 µs); only for inputs not much larger than the trial's, since
nothing else is known of them, and never for a model whose running time depends on its inputs' values.

Then it is tried what the model does with rows (``rows``), which decides whether requests are joined:

==================  =====================================  ============================
batching.maxSize    rows proved independent                mixed | cannot be said
==================  =====================================  ============================
left out            32 if that saves a fifth, otherwise 1  1 | 1
1                   1                                      1 | 1
more                as said                                refused | as said
==================  =====================================  ============================
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving.engines import artifact
from serving.engines.base import Engine, Interrupt
from serving.errors import ArtifactRefused, EngineLost, InvalidInput, ServingError
from serving.models import rows, warming
from serving.models.rows import Clocks, Rows
from serving.settings import Batching, Settings

INLINE_S = 100e-6
MAX_ROWS = 32
"""Rows of a call where nobody said how many."""
_MAX_GROWTH = 8
_TRIALS = 20
_TRIALS_S = 0.05


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An engine that answers, and what was found out about it."""

    engine: Engine
    inline_elements: int
    """Requests with at most this many input elements may run on the event loop; 0: none."""
    call_s: float = 0.0
    """How long it took for the smallest inputs."""
    max_rows: int = 1
    """Most rows of a call that requests share; 1: they share none."""
    max_batch_size: int = 0
    """Most rows of a batch in Triton's sense, whether or not requests share calls; 0: the first dimension is none of
    rows. It follows from the artifact and its settings alone, never from what was timed.
    """
    joins_inline: bool = False
    """Whether a call of ``max_rows`` may run on the event loop too."""
    finding: str = "was not tried"
    """What was found about its rows, and decided: a sentence from its verb on."""


def load(path: Path, said: Settings, clocks: Clocks = rows.REAL, shared: Path | None = None) -> Loaded:
    """Loads and tries an artifact; ArtifactRefused when it cannot be loaded, does not end within its time limit, or
    does not have what was said of it.
    """
    engine = _engine(path, said, shared)
    interrupt = Interrupt()
    timer = threading.Timer(said.limits.timeout_s, interrupt.fire)
    timer.start()
    try:
        engine.signature.labelled(said.labels)
        loaded = _tried(engine, path, said, interrupt, clocks if said.computes_here else clocks.without_processor())
        timer.cancel()
        warming.run(engine, path, said)
        return loaded
    except InvalidInput as error:
        engine.close()
        raise ArtifactRefused(f"{path} does not fit its settings: {error}") from error
    except BaseException:
        engine.close()
        raise
    finally:
        timer.cancel()


def _engine(path: Path, said: Settings, shared: Path | None) -> Engine:
    if said.isolation == "none":
        return artifact.load(path, said, shared)
    from serving.engines.process import ProcessEngine

    return ProcessEngine(path, said)


def _tried(engine: Engine, path: Path, said: Settings, interrupt: Interrupt, clocks: Clocks) -> Loaded:
    inline_elements, call_s = _inline_elements(engine, path, said.limits.timeout_s, interrupt, clocks.wall)
    if said.batching.max_size == 1:
        return Loaded(engine, inline_elements, call_s, finding="shares no calls (batching.maxSize is 1)")
    found = rows.tried(engine, interrupt, clocks)
    max_batch_size = _max_batch_size(path, said.batching, found)
    measured = said.batching.max_size is None and max_batch_size > 0
    max_rows = 1 if measured and found.gain < rows.WORTH else max(max_batch_size, 1)
    finding = f"{found.finding}; " + (f"shares calls of up to {max_rows} rows" if max_rows > 1 else "shares no calls")
    finding += " (as measured now; batching.maxSize pins it)" if measured else ""
    if max_rows > 1 and said.batching.max_delay_s > 0:
        inline_elements = 0  # who asks for fuller calls has requests wait, which the event loop must not
    joins_inline = inline_elements > 0 and max_rows > 1 and _is_quick(engine, found, max_rows, clocks.wall)
    return Loaded(engine, inline_elements, call_s, max_rows, max_batch_size, joins_inline, finding)


def _max_batch_size(path: Path, said: Batching, found: Rows) -> int:
    if said.max_size is None:
        return MAX_ROWS if found.independent else 0
    if found.independent is False:
        raise ArtifactRefused(
            f"{path} cannot share calls of {said.max_size} rows: it {found.finding}; "
            "leave batching.maxSize out, or set it to 1"
        )
    return said.max_size


def _is_quick(engine: Engine, found: Rows, max_rows: int, clock: Callable[[], float]) -> bool:
    if found.sample is None:
        return False
    inputs = {name: np.repeat(array, max_rows, axis=0) for name, array in found.sample.items()}
    outputs = [spec.name for spec in engine.signature.outputs]
    return _fastest(lambda: engine.infer(inputs, outputs), clock) <= INLINE_S


def _fastest(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """The least time of several calls: the machine may be busy with something else, for longer than a call takes."""
    fastest = math.inf
    spent = 0.0
    for _ in range(_TRIALS):
        begun = clock()
        call()
        took = clock() - begun
        fastest = min(fastest, took)
        spent += took
        if spent > _TRIALS_S:
            break
    return fastest


def _inline_elements(
    engine: Engine, path: Path, limit_s: float, interrupt: Interrupt, clock: Callable[[], float]
) -> tuple[int, float]:
    inputs = {spec.name: warming.zeros(spec) for spec in engine.signature.inputs}
    outputs = [spec.name for spec in engine.signature.outputs]
    begun = clock()
    try:
        engine.infer(inputs, outputs, interrupt)
        if engine.may_block:
            return 0, clock() - begun
        fastest = _fastest(lambda: engine.infer(inputs, outputs, interrupt), clock)
    except ServingError as error:
        if interrupt.fired:
            raise ArtifactRefused(
                f"{path} did not end its trial inference within {limit_s:g} s; "
                "check the model for an endless loop, or raise limits.timeout"
            ) from error
        if isinstance(error, EngineLost):
            raise ArtifactRefused(f"{path} cannot be served: in its trial inference {error}") from error
        return 0, 0.0  # it may not like zeros; a request will tell
    if fastest > INLINE_S:
        return 0, fastest
    growth = min(_MAX_GROWTH, INLINE_S / max(fastest, 1e-9))
    return int(sum(max(array.size, 1) for array in inputs.values()) * growth), fastest
