"""The management calls: what a server says about itself and its models, the same for REST and gRPC.

Answers are plain documents whose keys are both the JSON keys of V2 and the protobuf field names.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from serving.errors import Unsupported
from serving.models.base import Models, State
from serving.scheduling import ModelQueue
from serving.telemetry import statistics
from serving.telemetry.observing import Call, Observer
from serving.tensors import TensorSpec

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]

Document = dict[str, Any]


class Worker(NamedTuple):
    """One of several processes behind the same ports, as its supervisor numbers them from 0."""

    number: int
    of: int


class Service:
    """A server's models and its own state."""

    def __init__(self, models: Models, observer: Observer | None = None) -> None:
        self.models = models
        self.observer = observer or Observer()
        """Hears how each inference request ended."""
        self.in_work: list[Callable[[], Iterable[tuple[Call, float]]]] = []
        """What each protocol has in work now: the request, and when it was received."""
        self.requests_page: Callable[[bool], bytes] | None = None
        """The slowest requests and those in work, as JSON or (True) as HTML; None where nothing is computed."""
        self.worker: Worker | None = None
        """Which of several workers this process is; None where it is the only one."""
        self.draining = False
        """Set when the process was told to end: no longer ready, still answering."""
        self.everywhere: Callable[[str, str], Awaitable[None]] | None = None
        """Has ``load`` or ``unload`` of a model done by all workers, where there are several."""
        self.statistics_of_workers: Callable[[str, str], Awaitable[list[list[Document]]]] | None = None
        """What each worker has counted, where there are several."""

    def is_ready(self) -> bool:
        """Whether new requests should be sent here."""
        return not self.draining and self.models.is_ready()

    def metadata(self) -> Document:
        """The server's name, version and extensions."""
        return {"name": "penstock", "version": version(), "extensions": EXTENSIONS}

    def model_names(self) -> list[str]:
        """Every model known, ready or not."""
        return sorted({entry.name for entry in self.models.index()})

    def model_metadata(self, name: str, version: str) -> Document:
        """A model's versions, engine and tensors."""
        queue = self.models.find(name, version)
        versions = [entry.version for entry in self.models.index() if entry.name == name]
        return {
            "name": name,
            "versions": [version] if version else versions,
            "platform": queue.platform,
            "inputs": [_tensor(spec) for spec in queue.signature.inputs],
            "outputs": [_tensor(spec) for spec in queue.signature.outputs],
        }

    def model_config(self, name: str, version: str) -> Document:
        """A model's configuration in Triton's form."""
        return configuration(self.models.find(name, version))

    async def statistics(self, name: str, version: str) -> Document:
        """What was counted: of one version, of all of a model, or of all models; by all workers that there are now."""
        if not name and not self.models.computes:
            raise Unsupported(
                "each model's own server counts for itself; ask for one at /v2/models/NAME/stats "
                "(/v2/models lists them)"
            )
        here = self.statistics_here(name, version)
        if self.statistics_of_workers is None:
            return {"model_stats": here}
        return {"model_stats": statistics.added(await self.statistics_of_workers(name, version))}

    def statistics_here(self, name: str, version: str) -> list[Document]:
        """What this process has counted since it started."""
        queues = [self.models.find(name, version)] if version else []
        for entry in () if version else self.models.index():
            if name in ("", entry.name) and entry.state is State.READY:
                queues.append(self.models.find(entry.name, entry.version))
        if name and not queues:
            queues = [self.models.find(name, "")]
        return [statistics.of(queue.name, queue.version, queue.counters) for queue in queues]

    def index(self, only_ready: bool) -> list[Document]:
        """The repository index."""
        return [
            {"name": entry.name, "version": entry.version, "state": entry.state.value, "reason": entry.reason}
            for entry in self.models.index()
            if not only_ready or entry.state is State.READY
        ]

    async def load(self, name: str, has_parameters: bool) -> None:
        """Loads a model again from its path; nothing about it can be given in the call."""
        if has_parameters:
            raise Unsupported("a model is loaded from the paths given to this server; send no parameters")
        await (self.models.load(name) if self.everywhere is None else self.everywhere("load", name))

    async def unload(self, name: str) -> None:
        """Stops serving a model."""
        await (self.models.unload(name) if self.everywhere is None else self.everywhere("unload", name))


def configuration(queue: ModelQueue) -> Document:
    """A version's configuration in Triton's form: the rows of a batch are no dimension where they are independent.

    That follows from the artifact and its settings. Whether requests are joined may have been measured when the model
    was loaded, so it shows in ``dynamic_batching`` alone, and clients ask in one form either way.
    """
    has_rows = queue.max_batch_size > 0
    config: Document = {
        "name": queue.name,
        "platform": queue.platform,
        "backend": queue.platform.split("_")[0],
        "max_batch_size": queue.max_batch_size,
        "input": [_configured(spec, has_rows) for spec in queue.signature.inputs],
        "output": [_configured(spec, has_rows) for spec in queue.signature.outputs],
    }
    if queue.streams:
        config["model_transaction_policy"] = {"decoupled": True}
    if queue.joins:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(queue.max_delay_s * 1e6)}
    return config


@functools.cache
def version() -> str:
    """The version of the installed distribution; ``0`` when it runs from a source tree."""
    import importlib.metadata

    try:
        return importlib.metadata.version("penstock")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec, has_rows: bool) -> Document:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {
        "name": spec.name,
        "data_type": f"TYPE_{datatype}",
        "dims": list(spec.shape[1:] if has_rows else spec.shape),
    }
