"""The engines that come with Penstock, described as any other ServingRuntime."""

from __future__ import annotations

from operators.api.runtime import LocalProcess, ServingRuntimeSpec

ONNXRUNTIME, OPENVINO, LITERT, AUTO = "onnxruntime", "openvino", "litert", "auto"
TRITON, RAYSERVE = "triton", "rayserve"
KSERVE = "kserve"
"""Our server, as an InferenceService."""
LOWERED = frozenset({OPENVINO, LITERT, AUTO})
"""Our server all of them: a build lowers the variants to that engine, or tries all and takes the best."""


def builtin(image: str, python: str) -> dict[str, ServingRuntimeSpec]:
    """Built-in engines by name: ``image`` is what they run from in a cluster, ``python`` on a laptop."""
    server = ServingRuntimeSpec(
        image=image,
        args=("serve", "$(PENSTOCK_MODEL_DIR)"),
        local=LocalProcess(command=(python, "-m", "serving", "serve", "$(PENSTOCK_MODEL_DIR)")),
        protocols=("v1", "v2", "grpc-v2"),
        grpc_over_http1=True,
        formats=("onnx", "openvino", "litert", "identity"),
    )
    kserve = server.model_copy(update={"deploy_as": "InferenceService"})
    return dict.fromkeys((ONNXRUNTIME, *sorted(LOWERED)), server) | {KSERVE: kserve}


def local(python: str) -> dict[str, ServingRuntimeSpec]:
    """The same for ``penstock up``, and what comes with Penstock but has no image: others' servers."""
    return builtin("", python) | {TRITON: _behind("triton"), RAYSERVE: _behind("rayserve")}


def _behind(server: str) -> ServingRuntimeSpec:
    """A server of others in front of our engines, started by our own command of that name."""
    return ServingRuntimeSpec(
        # Its revisions name its command, which therefore names no path: replicas find our Python first.
        local=LocalProcess(command=("python", "-m", "serving", server, "$(PENSTOCK_MODEL_DIR)")),
        protocols=("v2", "grpc-v2"),
        formats=("onnx",),
    )


BUILTIN_NAMES = frozenset({ONNXRUNTIME, KSERVE}) | LOWERED
"""Those that are the same everywhere: a revision names them, and their servers make copies of requests."""
