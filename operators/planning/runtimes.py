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
    """The same for ``penstock up``, and servers of others."""
    return builtin("", python) | {TRITON: _behind(TRITON), RAYSERVE: _behind(RAYSERVE)}


def cluster(image: str, triton_image: str, python: str) -> dict[str, ServingRuntimeSpec]:
    """The same for a cluster, and what has an image of its own."""
    return builtin(image, python) | {TRITON: _behind(TRITON, triton_image)}


def counts_by_name(name: str, runtime: ServingRuntimeSpec) -> bool:
    """Whether it comes with Penstock, so that a revision names it and not its image; False for a user's of the name."""
    return name in BUILTIN_NAMES or runtime == _behind(name, runtime.image)


def _behind(server: str, image: str | None = None) -> ServingRuntimeSpec:
    """A server of others in front of our engines, started by our own command of that name."""
    return ServingRuntimeSpec(
        image=image,
        args=(server, "$(PENSTOCK_MODEL_DIR)"),
        # No path, so that it is the same everywhere: replicas find our Python first.
        local=LocalProcess(command=("python", "-m", "serving", server, "$(PENSTOCK_MODEL_DIR)")),
        protocols=("v2", "grpc-v2"),
        formats=("onnx",),
    )


BUILTIN_NAMES = frozenset({ONNXRUNTIME, KSERVE}) | LOWERED
"""Those of our own server, which makes copies of requests."""
