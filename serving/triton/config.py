"""``config.pbtxt``: what Triton is told of a model, made of what was found out about it and of its settings.

==================  =================================================================================
here                there
==================  =================================================================================
signature           ``input``, ``output``; without the first dimension where requests share calls
rows of a call      ``max_batch_size``; 0 where requests share none
batching.maxDelay   ``dynamic_batching.max_queue_delay_microseconds``
limits.timeout      ``default_queue_policy``: who waits longer is refused
limits.maxPending   ``default_queue_policy.max_queue_size``
cache               ``response_cache``
labels              ``label_filename``
==================  =================================================================================

``threads``, ``warmUp``, ``onnxruntime`` and ``limits.execution`` are the backend's own business, and a process of its
own is what it always is. What Triton cannot keep is refused, for a limit that is not kept is none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import ArtifactRefused
from serving.settings import Limits, Settings
from serving.tensors import Signature, TensorSpec

_MAX_PENDING = 128
_TYPES = {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"}
PATH, SETTINGS = "path", "settings"
"""Parameters by which the backend is told what to load."""


@dataclasses.dataclass(frozen=True)
class Served:
    """A model as Triton is to serve it."""

    name: str
    path: Path
    signature: Signature
    max_rows: int
    """Most rows of a call that requests share; 1: they share none."""
    said: Settings

    def __post_init__(self) -> None:
        for spec in (*self.signature.inputs, *self.signature.outputs):
            if spec.datatype not in _TYPES:
                raise ArtifactRefused(
                    f"{self.path} has '{spec.name}' of datatype {spec.datatype}, which Triton's Python backend cannot "
                    "pass on to NumPy 2; serve it with the runtime onnxruntime"
                )
            if not spec.shape:
                raise ArtifactRefused(
                    f"{self.path} has '{spec.name}' without any dimension, which Triton does not know; "
                    "serve it with the runtime onnxruntime"
                )
        lost = [] if self.said.limits.memory is None else ["limits.memory"]
        lost += ["limits.maxPendingBytes"] if self.said.limits.max_pending_bytes != Limits().max_pending_bytes else []
        if lost:
            raise ArtifactRefused(
                f"{' and '.join(lost)} of {self.path} cannot be kept by Triton; "
                "leave it out, or serve the model with the runtime onnxruntime"
            )

    @property
    def has_batches(self) -> bool:
        """Whether requests share calls: only where Triton can take the first dimension off and leave one."""
        specs = (*self.signature.inputs, *self.signature.outputs)
        return self.max_rows > 1 and all(len(spec.shape) > 1 for spec in specs)


def made(served: Served) -> pb.ModelConfig:
    """The configuration of ``served``; its file is protobuf's text format."""
    said, first = served.said, 1 if served.has_batches else 0
    config = pb.ModelConfig(
        name=served.name,
        backend="python",
        max_batch_size=served.max_rows if served.has_batches else 0,
        input=[
            pb.ModelInput(name=spec.name, data_type=_type(spec), dims=spec.shape[first:])
            for spec in served.signature.inputs
        ],
        output=[
            pb.ModelOutput(
                name=spec.name,
                data_type=_type(spec),
                dims=spec.shape[first:],
                label_filename=labels_file(position) if spec.name in said.labels else "",
            )
            for position, spec in enumerate(served.signature.outputs)
        ],
        instance_group=[pb.ModelInstanceGroup(kind=pb.ModelInstanceGroup.KIND_CPU, count=1)],
        # Without batches too: it is what has a limit on its queue.
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=round(said.batching.max_delay_s * 1e6) if served.has_batches else 0,
            default_queue_policy=pb.ModelQueuePolicy(
                timeout_action=pb.ModelQueuePolicy.REJECT,
                default_timeout_microseconds=round(said.limits.timeout_s * 1e6),
                max_queue_size=said.limits.max_pending or _MAX_PENDING,
            ),
        ),
    )
    config.parameters[PATH].string_value = str(served.path)
    config.parameters[SETTINGS].string_value = msgspec.json.encode(said).decode()
    if said.cache:
        config.response_cache.enable = True
    return config


def labels_file(output: int) -> str:
    """The file that names the classes of an output, by the output's position."""
    return f"labels-{output}.txt"


def _type(spec: TensorSpec) -> pb.DataType:
    return pb.DataType.Value(f"TYPE_{spec.datatype}")
