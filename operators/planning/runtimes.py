"""The engines that come with Penstock, described as any other ServingRuntime."""

from __future__ import annotations

from operators.api.runtime import LocalProcess, ServingRuntimeSpec

ONNXRUNTIME = "onnxruntime"


def builtin(image: str, python: str) -> dict[str, ServingRuntimeSpec]:
    """Built-in engines by name: ``image`` is what they run from in a cluster, ``python`` on a laptop."""
    server = ServingRuntimeSpec(
        image=image,
        args=("serve", "$(PENSTOCK_MODEL_DIR)"),
        local=LocalProcess(command=(python, "-m", "serving", "serve", "$(PENSTOCK_MODEL_DIR)")),
        protocols=("v1", "v2", "grpc-v2"),
        grpc_over_http1=True,
        formats=("onnx", "identity"),
    )
    return {ONNXRUNTIME: server}


BUILTIN_NAMES = frozenset({ONNXRUNTIME})
