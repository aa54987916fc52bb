"""From an artifact to an engine that has proved it can answer: load, one inference under the time limit, warm-up.

The trial inference refuses a model that never ends before anybody can ask it anything, and it
measures. A model that answered in less than ``INLINE_S`` is cheaper to run on the event loop than to
hand to a thread and back (about 50 µs); only for inputs not much larger than the trial's, since
nothing else is known of them, and never for a model whose running time depends on its inputs' values.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving import warming
from serving.engines import artifact
from serving.engines.base import Engine, Interrupt
from serving.errors import ArtifactRefused, EngineLost, InvalidInput, ServingError
from serving.settings import Settings

INLINE_S = 100e-6
_MAX_GROWTH = 8
_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An engine that answers."""

    engine: Engine
    inline_elements: int
    """Requests with at most this many input elements may run on the event loop; 0: none."""


def load(path: Path, said: Settings, clock: Callable[[], float] = time.perf_counter) -> Loaded:
    """Loads and tries an artifact; ArtifactRefused when it cannot be loaded, does not end within its time limit, or
    does not have what was said of it.
    """
    engine = _engine(path, said)
    try:
        engine.signature.labelled(said.labels)
        inline_elements = _inline_elements(engine, path, said.limits.timeout_s, clock)
        warming.run(engine, path, said)
        return Loaded(engine, inline_elements)
    except InvalidInput as error:
        engine.close()
        raise ArtifactRefused(f"{path} does not fit its settings: {error}") from error
    except BaseException:
        engine.close()
        raise


def _engine(path: Path, said: Settings) -> Engine:
    if said.isolation == "none":
        return artifact.load(path)
    from serving.engines.process import ProcessEngine

    return ProcessEngine(path, said)


def _inline_elements(engine: Engine, path: Path, limit_s: float, clock: Callable[[], float]) -> int:
    inputs = {spec.name: warming.zeros(spec) for spec in engine.signature.inputs}
    outputs = [spec.name for spec in engine.signature.outputs]
    interrupt = Interrupt()
    timer = threading.Timer(limit_s, interrupt.fire)
    timer.start()
    try:
        engine.infer(inputs, outputs, interrupt)
        if engine.may_loop:
            return 0
        fastest = math.inf
        for _ in range(_TRIALS):  # the fastest of them: the machine may be busy with something else
            begun = clock()
            engine.infer(inputs, outputs)
            took = clock() - begun
            fastest = min(fastest, took)
            if took > INLINE_S * 10:
                break
    except ServingError as error:
        if interrupt.fired:
            raise ArtifactRefused(
                f"{path} did not end its trial inference within {limit_s:g} s; "
                "check the model for an endless loop, or raise limits.timeout"
            ) from error
        if isinstance(error, EngineLost):
            raise ArtifactRefused(f"{path} cannot be served: in its trial inference {error}") from error
        return 0  # it may not like zeros; a request will tell
    finally:
        timer.cancel()
    if fastest > INLINE_S:
        return 0
    growth = min(_MAX_GROWTH, INLINE_S / max(fastest, 1e-9))
    return int(sum(max(array.size, 1) for array in inputs.values()) * growth)
