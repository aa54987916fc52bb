"""``ServingRuntime``: an engine described as data, so that a third-party container becomes one by YAML alone."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from operators.api.base import APIObject, Rule, Strict

Text = Annotated[str, Field(max_length=4096)]


class Ports(Strict):
    http: Annotated[int, Field(ge=1, le=65535)] = 8080
    """Port of REST (and of unary gRPC, where `grpcOverHttp1` is true)."""
    grpc: Annotated[int, Field(ge=1, le=65535)] = 9000
    """Port of gRPC over HTTP/2."""


class LocalProcess(Strict):
    command: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)]
    """Command line that runs the engine as a process on a laptop. `$(PENSTOCK_MODEL)`, `$(PENSTOCK_MODEL_DIR)`,
    `$(PENSTOCK_HTTP_PORT)` and the like stand for their values.
    """


class ServingRuntimeSpec(Strict):
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.image) || has(self.local)",
            "spec needs image (to run in a cluster), local (to run as a process), or both",
            lambda self: self.image is not None or self.local is not None,
        ),
    )
    image: Annotated[str, Field(max_length=512)] | None = None
    """Container image of the engine; needed in a cluster. Pin it by digest."""
    command: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Entry point of the container; the image's own when empty. `$(NAME)` stands for environment, as in any pod."""
    args: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Arguments of the container."""
    deploy_as: Literal["Deployment", "InferenceService", "RayService"] = "Deployment"
    """Kind of the object that carries the replicas in a cluster: `InferenceService` needs KServe there,
    `RayService` KubeRay. `penstock up` runs processes, whatever it is.
    """
    local: LocalProcess | None = None
    """How the same engine runs without a container, for `penstock up`."""
    ports: Ports = Ports()
    """Ports the engine listens on inside its container."""
    protocols: Annotated[tuple[Literal["v1", "v2", "grpc-v2"], ...], Field(min_length=1, max_length=3)] = ("v2",)
    """Protocols the engine speaks."""
    grpc_over_http1: bool = False
    """The engine answers unary gRPC on its REST port as HTTP/1.1 with trailers, which the router then prefers: one
    queue for both protocols and about a third of the cost.
    """
    formats: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(min_length=1, max_length=32)]
    """Model formats the engine can load, such as `onnx`."""
    ready_path: Annotated[str, Field(pattern="^/", max_length=256)] = "/v2/health/ready"
    """HTTP path that answers 200 once the model can be asked."""


class ServingRuntime(APIObject):
    """An engine: what runs a variant, and what it can load."""

    plural: ClassVar[str] = "servingruntimes"
    short_names: ClassVar[tuple[str, ...]] = ("srt",)
    namespaced: ClassVar[bool] = False
    kind: Literal["ServingRuntime"] = "ServingRuntime"
    spec: ServingRuntimeSpec
