"""What a model costs on this hardware: CPU time of a call by batch size, memory, and the time to load it.

CPU time decides. Wall time is reported and never decides: beside neighbours it varies by a factor of two where CPU time
repeats within 6 % (measured). All models take turns, in another random order each round, so that whatever else the
machine does meets all of them alike. A call is repeated until it takes ``_LEAST_S``, well above the clock's grain.

The curve ``l(b) = a + c b`` says what a call of b samples costs: least squares over relative errors, because a batch of
32 must not count for more than a batch of 1.
"""

from __future__ import annotations

import dataclasses
import platform
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from serving.engines import artifact, cpu
from serving.engines.base import Engine
from serving.settings import Settings
from serving.tensors import DTYPES, Array, Signature
from serving.variants.choosing import Took

SIZES = (1, 2, 4, 8, 16, 32)
ROUNDS = 15
_LEAST_S = 0.005
_LONGEST_S = 20.0
"""Per batch size; what is slow has fewer rounds, at least three."""
_DOT_PRODUCTS = (("avx512_vnni", "avx_vnni"), ("asimddp", "i8mm"))
"""Features that multiply 8-bit integers into 32 bits, by architecture."""
_QUANTIZED = frozenset(
    ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
)
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", *cpu.BF16, "avx512_fp16"),
    *("asimddp", "i8mm"),
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a profile is valid for."""

    architecture: str
    cpu: str
    features: tuple[str, ...]
    threads: int

    @classmethod
    def here(cls, threads: int) -> Machine:
        """The one this runs on, with engines of so many threads."""
        try:
            told = cpu.INFO.read_text()
        except OSError:
            told = ""
        name = re.search(r"^model name\s*:\s*(.*)$", told, re.MULTILINE)
        has = cpu.features()
        features = tuple(one for one in _FEATURES if one in has)
        return cls(platform.machine(), name[1] if name else platform.processor(), features, threads)


def proven_for(operators: Iterable[str], machine: Machine) -> tuple[str, ...]:
    """Features of which a processor must have one to compute such a graph as ``machine`` did; empty: any will do.

    Products of 8-bit integers are slower without an instruction for them, and on older x86 processors other numbers
    come out: sums of two products saturate at 16 bits.
    """
    if not _QUANTIZED & set(operators):
        return ()
    return next((family for family in _DOT_PRODUCTS if set(family) & set(machine.features)), ())


@dataclasses.dataclass(frozen=True)
class Curve:
    """CPU ms of a call of b samples, ``fixed_ms + sample_ms * b``; ``error`` is the largest relative miss."""

    fixed_ms: float
    sample_ms: float
    error: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one model, by batch size: medians over the rounds."""

    cpu_ms: Mapping[int, float]
    wall_ms: Mapping[int, float]
    curve: Curve


def measure(
    models: Mapping[str, Path],
    samples: Mapping[str, Array] | None,
    threads: int,
    told: Callable[[float], None],
    sizes: Sequence[int],
) -> dict[str, dict[int, Took]]:
    """What calls of each model take, by batch size: medians over the rounds.

    ``samples`` are inputs to repeat; noise without them. ``told`` hears the share done.
    """
    said = Settings(threads=threads)
    engines = {name: artifact.load(path, said) for name, path in models.items()}
    busy: dict[tuple[str, int], list[float]] = {}
    wall: dict[tuple[str, int], list[float]] = {}
    order = random.Random(1)
    for position, size in enumerate(sizes):
        inputs = {name: _inputs(engine.signature, samples, size) for name, engine in engines.items()}
        repeats = {name: _repeats(engine, inputs[name]) for name, engine in engines.items()}
        began = time.perf_counter()
        for number in range(ROUNDS):
            names = list(engines)
            order.shuffle(names)
            for name in names:
                before, since = time.process_time(), time.perf_counter()
                for _ in range(repeats[name]):
                    engines[name].infer(inputs[name], _outputs(engines[name]))
                busy.setdefault((name, size), []).append((time.process_time() - before) * 1e3 / repeats[name])
                wall.setdefault((name, size), []).append((time.perf_counter() - since) * 1e3 / repeats[name])
            told((position + (number + 1) / ROUNDS) / len(sizes))
            if number >= 2 and time.perf_counter() - began > _LONGEST_S:
                break
    return {
        name: {size: Took(float(np.median(busy[name, size])), float(np.median(wall[name, size]))) for size in sizes}
        for name in engines
    }


def cost(took: Mapping[int, Took]) -> Cost:
    """Of what was measured on one thread, by batch size."""
    cpu_ms = {size: took[size].cpu_ms for size in sorted(took)}
    return Cost(cpu_ms, {size: took[size].wall_ms for size in sorted(took)}, curve(cpu_ms))


def curve(cpu_ms: Mapping[int, float]) -> Curve:
    """The line through costs by batch size; flat through one."""
    sizes, costs = np.array(list(cpu_ms), float), np.array(list(cpu_ms.values()))
    if len(sizes) == 1:
        return Curve(0.0, float(costs[0] / sizes[0]), 0.0)
    terms = np.stack([np.ones_like(sizes), sizes], axis=1) / costs[:, None]
    (fixed, each), *_ = np.linalg.lstsq(terms, np.ones_like(sizes), rcond=None)
    missed = np.abs(fixed + each * sizes - costs) / costs
    return Curve(float(fixed), float(each), float(missed.max()))


@dataclasses.dataclass(frozen=True)
class Weight:
    """What one process takes to have the model: its own memory after a first answer, above that without a model."""

    memory_bytes: int
    load_s: float


def weigh(model: Path, samples: Mapping[str, Array] | None, threads: int) -> Weight:
    """To be asked in a process of its own."""
    artifact.prepare(model)
    before, began = _own_bytes(), time.perf_counter()
    engine = artifact.load(model, Settings(threads=threads))
    load_s = time.perf_counter() - began
    engine.infer(_inputs(engine.signature, samples, 1), _outputs(engine))
    return Weight(max(0, _own_bytes() - before), load_s)


def _own_bytes() -> int:
    told = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", told, re.MULTILINE)) * 1024


def _inputs(signature: Signature, samples: Mapping[str, Array] | None, size: int) -> dict[str, Array]:
    if samples is not None:
        return {
            name: np.ascontiguousarray(np.resize(array, (size, *array.shape[1:]))) for name, array in samples.items()
        }
    noise = np.random.default_rng(0)
    made = {}
    for spec in signature.inputs:
        shape = [size if place == 0 and one == -1 else max(one, 1) for place, one in enumerate(spec.shape)]
        made[spec.name] = np.ascontiguousarray(noise.random(shape), DTYPES[spec.datatype])
    return made


def _repeats(engine: Engine, inputs: Mapping[str, Array]) -> int:
    for _ in range(2):
        began = time.process_time()
        engine.infer(inputs, _outputs(engine))
        took_s = time.process_time() - began
    return max(1, round(_LEAST_S / max(took_s, 1e-5)))


def _outputs(engine: Engine) -> list[str]:
    return [spec.name for spec in engine.signature.outputs]
