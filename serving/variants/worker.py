"""The process of one stage: does what its one argument says, tells how far it is, and ends.

One line of JSON each on standard output: ``{"share": 0.4}``, at the end ``{"facts": …}`` or ``{"refused": "why"}``.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from serving.contract import Exit
from serving.engines.base import Engine
from serving.errors import ArtifactRefused, ServingError
from serving.parent import die_with
from serving.tensors import Array, Signature
from serving.variants import datasets, recipe
from serving.variants.datasets import Batch

_LARGEST_FILE_BYTES = 16 * 2**30
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What has no room left is no fault of the model."""
_SAMPLES = 8
"""At a time: calibration keeps the activations of a batch."""

Told = Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class Order:
    """What to do."""

    kind: str
    told: Any
    inputs: dict[str, Path]
    folder: Path
    trial_s: float = 0.0
    contract: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The Model's, by which samples that are pictures become tensors."""

    def dataset(self, role: str, signature: Signature) -> datasets.Dataset:
        """The input of that role."""
        return datasets.opened(self.inputs[role], signature, self.contract)


def main(text: str) -> Exit:
    """Runs one stage."""
    order = json.loads(text)
    if not die_with(order["parent"]):
        return Exit.FAILED
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE_BYTES, _LARGEST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory_bytes"], order["memory_bytes"]))
    inputs = {role: Path(path) for role, path in order["inputs"].items()}
    # Whatever a library prints must not be taken for what we tell.
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        facts = _done(
            Order(order["kind"], order["told"], inputs, Path(order["folder"]), order["trial_s"], order["contract"]),
            lambda share: _say(told, share=share),
        )
    except ServingError as error:
        short = f"; a step may have {order['memory_bytes'] >> 20} MiB of memory" if _is_short(error) else ""
        _say(told, refused=f"{error}{short}")
        return error.exit
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _say(told, full=error.strerror)
        return Exit.UNAVAILABLE
    except MemoryError:
        _say(told, short=order["memory_bytes"] >> 20)
        return Exit.REFUSED
    _say(told, facts=facts)
    return Exit.OK


def _say(file: Any, **message: Any) -> None:
    file.write(json.dumps(message) + "\n")
    file.flush()


def _done(order: Order, told: Told) -> dict[str, Any]:
    match order.kind:
        case "check":
            return _check(order, order.trial_s)
        case "import":
            return _import(order)
        case "outcome":
            return _outcome(order, told)
        case "weigh":
            return _weigh(order)
        case "profile":
            return _profile(order, told)
        case kind:
            return _pass(kind, order, told)


def _pass(kind: str, order: Order, told: Told) -> dict[str, Any]:
    from serving.variants.passes import base

    asked = msgspec.convert(order.told, getattr(recipe, kind.capitalize()))
    name = "prune_channels" if getattr(asked, "structure", "") == "channels" else kind
    name = "lower_litert" if getattr(asked, "target", "") == "litert" else name
    if order.inputs["model"].suffix != ".onnx":
        raise base.PassRefused(f"{kind}: it changes ONNX, and {order.inputs['model'].name} is none; leave {kind} out")
    try:
        module = importlib.import_module(f"serving.variants.passes.{name}")
        others = {role: path for role, path in order.inputs.items() if role not in ("model", "samples")}
        facts = module.make(order.inputs["model"], order.folder, asked, _samples(order), told, **others)
    except (ServingError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        # Of the libraries behind the passes: they raise whatever comes to them, for models they cannot change.
        raise base.PassRefused(f"{kind}: {type(error).__name__}: {str(error)[:300]}; leave {kind} out") from error
    made = dataclasses.replace(order, inputs={"model": order.folder / base.file(asked)})
    try:
        return {**facts, **_check(made)}
    except ArtifactRefused as error:
        # Nobody else has seen the folder, and it is gone when this is read.
        raise base.PassRefused(f"{kind}: {str(error).replace(f'{order.folder}/', '')}") from error


def _import(order: Order) -> dict[str, Any]:
    """A source of another format as ONNX, when it answers the same."""
    from serving.engines import artifact
    from serving.variants import sources
    from serving.variants.passes import base

    answers = sources.convert(order.inputs["model"], order.folder)
    written = dataclasses.replace(order, inputs={**order.inputs, "model": order.folder / base.FILE})
    engine = artifact.load(written.inputs["model"])
    samples = _some(written, sources.SAMPLES)
    inputs = sources.noise(engine.signature) if samples is None else samples
    apart = sources.compared(answers, engine, inputs)
    return {
        "from": order.inputs["model"].name,
        "difference": apart,
        "compared": f"{len(next(iter(inputs.values())))} samples of {'noise' if samples is None else 'the dataset'}",
        **_check(written),
    }


def _check(order: Order, trial_s: float = 0.0) -> dict[str, Any]:
    """That the server's own engine loads the model, and what it is; with ``trial_s``, that it answers in that time."""
    from serving.engines import artifact

    model = order.inputs["model"]
    engine = artifact.load(model)
    if trial_s:
        _try(engine, trial_s)
    described = {
        role: [[spec.name, spec.datatype, list(spec.shape)] for spec in specs]
        for role, specs in (("inputs", engine.signature.inputs), ("outputs", engine.signature.outputs))
    }
    beside = [file for file in model.parent.iterdir() if file.name == f"{model.name}.data"]
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "digest": f"sha256:{digest}",
        "bytes": sum(file.stat().st_size for file in (model, *beside)),
        "signature": described,
        "operators": _operators(model, engine),
    }


def _operators(model: Path, engine: Engine) -> list[str]:
    """Kinds of nodes of its graph."""
    if model.suffix != ".onnx":
        return list(getattr(engine, "operators", ()))
    import onnx

    return sorted({node.op_type for node in onnx.load(model, load_external_data=False).graph.node})


def _try(engine: Engine, most_s: float) -> None:
    """Ends this process when the model does not answer in time: nothing else stops an operator that hears nobody."""
    from serving.models import warming

    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        inputs = {spec.name: warming.zeros(spec) for spec in engine.signature.inputs}
        engine.infer(inputs, [spec.name for spec in engine.signature.outputs])
    except ServingError as error:
        if _is_short(error):
            raise
        # It may not like zeros; real samples will tell.
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_short(error: ServingError) -> bool:
    """Whether it is for want of memory that ONNX Runtime failed, which has no error of its own for it."""
    return "Failed to allocate memory" in str(error) or "bad_alloc" in str(error)


def _samples(order: Order) -> Callable[[], Iterator[Batch]] | None:
    if "samples" not in order.inputs:
        return None
    from serving.engines import artifact

    dataset = order.dataset("samples", artifact.load(order.inputs["model"]).signature)
    return lambda: dataset.batches(_SAMPLES)


def _outcome(order: Order, told: Told) -> dict[str, Any]:
    from serving.engines import artifact
    from serving.variants import evaluation, metrics

    engine = artifact.load(order.inputs["model"])
    dataset = order.dataset("dataset", engine.signature)
    found = evaluation.outcome(
        engine, dataset, metrics.named(order.told["metric"], order.contract), order.told["by"], told
    )
    found.save(order.folder / "outcome.npz")
    return {"samples": len(found.rows)}


def _weigh(order: Order) -> dict[str, Any]:
    from serving.variants import profiling

    weight = profiling.weigh(order.inputs["model"], _some(order), order.told["threads"])
    return dataclasses.asdict(weight)


def _profile(order: Order, told: Told) -> dict[str, Any]:
    from serving.variants import profiling

    models = {role.removeprefix("model."): path for role, path in order.inputs.items() if role.startswith("model.")}
    found = profiling.measure(models, _some(order), order.told["threads"], told, order.told["batches"])
    return {name: {size: dataclasses.asdict(took) for size, took in each.items()} for name, each in found.items()}


def _some(order: Order, most: int = 32) -> dict[str, Array] | None:
    """A batch of real samples, where there are any."""
    if "dataset" not in order.inputs:
        return None
    from serving.engines import artifact

    model = next(path for role, path in order.inputs.items() if role.startswith("model"))
    batch = next(order.dataset("dataset", artifact.load(model).signature).batches(most))
    return {name: np.array(array) for name, array in batch.inputs.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
