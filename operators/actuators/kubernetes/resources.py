"""The resources a cluster operator reads and writes, and the caches that follow them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from operators.api.base import GROUP, VERSION
from operators.runtime.cache import Cache
from operators.runtime.resource import Resource

MODELS = Resource(GROUP, VERSION, "models", "Model")
ENDPOINTS = Resource(GROUP, VERSION, "endpoints", "Endpoint")
SERVING_RUNTIMES = Resource(GROUP, VERSION, "servingruntimes", "ServingRuntime", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
INFERENCE_SERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService")
RAY_SERVICES = Resource("ray.io", "v1", "rayservices", "RayService")
RAY_CLUSTERS = Resource("ray.io", "v1", "rayclusters", "RayCluster")
SERVICES = Resource("", "v1", "services", "Service")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PODS = Resource("", "v1", "pods", "Pod")
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
HTTP_ROUTES = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GRPC_ROUTES = Resource("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute")
JOBS = Resource("batch", "v1", "jobs", "Job")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


@dataclasses.dataclass(frozen=True)
class Routers:
    """Caches of the router's pods and of the ConfigMaps in which they report."""

    pods: Cache
    reports: Cache

    def __iter__(self) -> Iterator[Cache]:
        return iter((self.pods, self.reports))


@dataclasses.dataclass(frozen=True)
class Children:
    """Caches of what the operator makes, and of the pods that come of it."""

    carriers: Mapping[str, Cache]
    """What carries workloads, by kind."""
    services: Cache
    config_maps: Cache
    jobs: Cache
    pods: Cache

    def __iter__(self) -> Iterator[Cache]:
        return iter((*self.carriers.values(), self.services, self.config_maps, self.jobs, self.pods))
