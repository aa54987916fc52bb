"""The engines that come with Penstock, described as any other ServingRuntime."""

from __future__ import annotations

from operators.api.runtime import LocalProcess, ServingRuntimeSpec

ONNXRUNTIME, TRITON = "onnxruntime", "triton"


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


def local(python: str) -> dict[str, ServingRuntimeSpec]:
    """The same for ``penstock up``, and what comes with Penstock but has no image: Triton behind our own command."""
    # Its revisions name its command, which therefore names no path: replicas find our Python first.
    triton = ServingRuntimeSpec(
        local=LocalProcess(command=("python", "-m", "serving", "triton", "$(PENSTOCK_MODEL_DIR)")),
        protocols=("v2", "grpc-v2"),
        formats=("onnx",),
    )
    return builtin("", python) | {TRITON: triton}


BUILTIN_NAMES = frozenset({ONNXRUNTIME})
"""Those that are the same everywhere: a revision names them, and their servers make copies of requests."""
