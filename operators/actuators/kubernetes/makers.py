"""From a plan to Kubernetes objects: one pure function per child kind.

Names are deterministic and every child is owned by the object it was made for, so that applying twice changes
nothing and the garbage collector removes what is left behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from operators.api import routes
from operators.api.base import API_VERSION
from operators.api.plan import Key, Route, Split, Workload
from operators.api.resources import ComputeList
from operators.api.routes import ENDPOINT_LABEL, MANAGED_BY, MODEL_LABEL, ROUTE_LABEL, WORKLOAD_LABEL
from operators.api.runtime import ServingRuntimeSpec
from serving import contract
from serving.contract import Env

Object = dict[str, Any]

REVISION_LABEL = "penstock.dev/revision"
VARIANT_LABEL = "penstock.dev/variant"

STORAGE_SECRET = "penstock-storage"
"""Secret of the Model's namespace whose keys, such as AWS_ACCESS_KEY_ID, a fetch gets as environment, where it
exists.
"""
REGISTRY_SECRET = "penstock-registry"
"""Secret of the Model's namespace, of the kind that `kubectl create secret docker-registry` makes, with the logins
of OCI registries; where it exists, a fetch from one sees it.
"""

STORAGE_KEYS: Object = {"secretRef": {"name": STORAGE_SECRET, "optional": True}}

_SOURCE_DIR, _OTHERWISE_DIR = "/mnt/source", "/mnt/otherwise"
_REGISTRY_DIR = "/mnt/registry"
_NOBODY = 65532
_IN_MEMORY = {"tmp": "/tmp", "shm": "/dev/shm"}
"""What an engine may write, at most its memory limit: of shared memory a container has 64 MiB by itself, which is too
little for those that hand tensors to other processes, as Triton's Python backend does.
"""
_KILL_GRACE_S = 7
"""Left over after pre-stop sleep and drain, to end and be seen to have ended."""


def owner(key: Key, uid: str) -> Object:
    """The reference that makes ``key`` the owner of a child.

    Without ``blockOwnerDeletion``: to set it needs the right to write finalizers where an API server asks for it.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind,
        "name": key.name,
        "uid": uid,
        "controller": True,
    }


def service(workload: Workload, owner: Object, selects: Mapping[str, str]) -> Object:
    """A headless Service: its EndpointSlices tell the router which replicas are ready.

    ``selects`` are labels of the replicas that answer, beside the workload's.
    """
    ports = workload.runtime.ports
    over_http1 = {routes.GRPC_OVER_HTTP1_LABEL: "true"} if workload.runtime.grpc_over_http1 else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(workload, labels(workload) | over_http1, owner),
        "spec": {
            "clusterIP": "None",
            "selector": {WORKLOAD_LABEL: workload.name, **selects},
            "ports": [
                {"name": routes.HTTP_PORT, "port": ports.http, "targetPort": "http", "protocol": "TCP"},
                {
                    "name": routes.GRPC_PORT,
                    "port": ports.grpc,
                    "targetPort": "h2c",
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }


def route_name(kind: str, name: str) -> str:
    """Name of the object that routes to the Model or Endpoint ``name``."""
    return name + (routes.MODEL_SUFFIX if kind == "Model" else routes.ENDPOINT_SUFFIX)


def route(route: Route | Split, owner: Object) -> Object:
    """The route as the router reads it; what the router does with it, it tells in a report of its own.

    The router shows its message to anyone who asks, so it names no pod, image or quota: the Model's owner reads those.
    """
    label = MODEL_LABEL if isinstance(route, Route) else ENDPOINT_LABEL
    if isinstance(route, Route) and route.message:
        look = f"nothing serves model {route.name}; `kubectl -n {route.namespace} describe model {route.name}` says why"
        route = dataclasses.replace(route, message=look)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": route_name("Model" if isinstance(route, Route) else "Endpoint", route.name),
            "namespace": route.namespace,
            "labels": MANAGED_BY | {label: route.name, ROUTE_LABEL: route.name},
            "ownerReferences": [owner],
        },
        "data": routes.route_data(route),
    }


def labels(workload: Workload) -> dict[str, str]:
    """What each object of a workload carries, its pods too."""
    return MANAGED_BY | {
        MODEL_LABEL: workload.model,
        REVISION_LABEL: workload.revision,
        VARIANT_LABEL: workload.variant,
        WORKLOAD_LABEL: workload.name,
    }


def metadata(workload: Workload, labels: dict[str, str], owner: Object) -> Object:
    """Of an object that has the workload's name."""
    return {
        "name": workload.name,
        "namespace": workload.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }


def pod(workload: Workload, fetch_image: str, cache_url: str | None = None, is_routed: bool = True) -> Object:
    """Spec of a replica: it fetches the artifact and serves it, under the ``restricted`` Pod Security Standard.

    ``is_routed`` says that our router alone sends requests there.
    """
    mount: Object = {"name": "model", "mountPath": contract.MODEL_DIR}
    in_memory: Object = {"emptyDir": {"medium": "Memory"}}
    volumes: list[Object] = [{"name": "model", "emptyDir": {}}, *({"name": name, **in_memory} for name in _IN_MEMORY)]
    mounts = [mount]

    def seen(uri: str, name: str, folder: str) -> str:
        """The URI as the pod sees it; what it takes to see it is mounted."""
        source = urlparse(uri)
        if source.scheme != "pvc":
            return uri
        claim = {"claimName": source.netloc, "readOnly": True}
        volumes.append({"name": name, "persistentVolumeClaim": claim})
        mounts.append({"name": name, "mountPath": folder, "readOnly": True})
        return f"file://{folder}{source.path}"

    artifact, otherwise = workload.artifact, workload.otherwise
    fetch = ["fetch", "--uri", seen(artifact.uri, "source", _SOURCE_DIR), "--digest", str(artifact.digest)]
    fetch += ["--to", contract.MODEL_DIR]
    if otherwise is not None:
        uri = seen(otherwise.uri, "otherwise", _OTHERWISE_DIR)
        fetch += ["--for-cpu", ",".join(otherwise.for_cpu)]
        fetch += ["--otherwise", f"{otherwise.variant}={uri}@{otherwise.digest}"]
    variables = {Env.TERMINATION_LOG: "/dev/termination-log"} | ({Env.CACHE_URL: cache_url} if cache_url else {})
    if "oci" in {urlparse(uri).scheme for uri in (artifact.uri, otherwise.uri if otherwise else "")}:
        volume, logins, variables[Env.DOCKER_CONFIG] = registry_logins()
        volumes.append(volume)
        mounts.append(logins)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": contract.PRE_STOP_SLEEP_S + contract.DRAIN_TIMEOUT_S + _KILL_GRACE_S,
        "securityContext": POD_SECURITY,
        "initContainers": [
            {
                "name": "fetch",
                "image": fetch_image,
                "args": fetch,
                "env": env(variables),
                "envFrom": [STORAGE_KEYS],
                "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
                "resources": _compute(workload),
                "terminationMessagePolicy": LAST_WORDS,
                "securityContext": RESTRICTED,
            }
        ],
        "containers": [
            _engine(
                workload,
                [
                    {**mount, "readOnly": True},
                    *({"name": name, "mountPath": path} for name, path in _IN_MEMORY.items()),
                ],
                is_routed,
            )
        ],
        "volumes": volumes,
    }


def pods_of(namespace: str, labels: Mapping[str, str] | None = None) -> Object:
    """Whom a NetworkPolicy lets in: the pods of a namespace, those with ``labels`` or all."""
    found: Object = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    return found | ({"podSelector": {"matchLabels": dict(labels)}} if labels else {})


def registry_logins() -> tuple[Object, Object, str]:
    """Volume, mount and folder of what logs in to OCI registries."""
    logins = {"key": ".dockerconfigjson", "path": "config.json"}
    secret = {"secretName": REGISTRY_SECRET, "optional": True, "items": [logins]}
    mount = {"name": "registry", "mountPath": _REGISTRY_DIR, "readOnly": True}
    return {"name": "registry", "secret": secret}, mount, _REGISTRY_DIR


LAST_WORDS = "FallbackToLogsOnError"
"""What has not written why it ends is quoted from its log, so that a condition can say more than an exit code."""
POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": _NOBODY,
    "runAsGroup": _NOBODY,
    "fsGroup": _NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _engine(workload: Workload, mounts: Sequence[Object], is_routed: bool) -> Object:
    runtime = workload.runtime
    container: Object = {
        "name": "engine",
        "image": runtime.image,
        "args": list(runtime.args),
        "env": env(
            {
                Env.MODEL: workload.model,
                Env.NAMESPACE: workload.namespace,
                Env.REVISION: workload.revision,
                Env.VARIANT: workload.variant,
                Env.MODEL_DIR: contract.MODEL_DIR,
                Env.HOST: "0.0.0.0",
                Env.HTTP_PORT: str(runtime.ports.http),
                Env.GRPC_PORT: str(runtime.ports.grpc),
                Env.TERMINATION_LOG: "/dev/termination-log",
                **({Env.ROUTED: "1"} if is_routed else {}),
                **({Env.SETTINGS: workload.settings} if workload.settings else {}),
            }
        ),
        "ports": [
            {"name": "http", "containerPort": runtime.ports.http, "protocol": "TCP"},
            {"name": "h2c", "containerPort": runtime.ports.grpc, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": runtime.ready_path, "port": "http"}, "periodSeconds": 2},
        "startupProbe": {
            "httpGet": {"path": runtime.ready_path, "port": "http"},
            "periodSeconds": 1,
            "failureThreshold": 600,
        },
        "livenessProbe": {**_alive(runtime), "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": contract.PRE_STOP_SLEEP_S}}},
        "resources": _compute(workload),
        "terminationMessagePolicy": LAST_WORDS,
        "securityContext": RESTRICTED,
        "volumeMounts": list(mounts),
    }
    if runtime.command:
        container["command"] = list(runtime.command)
    return container


def _alive(runtime: ServingRuntimeSpec) -> Object:
    """A hung process still accepts connections, so an engine that speaks V2 is asked; it never depends on models."""
    if "v2" in runtime.protocols:
        return {"httpGet": {"path": contract.LIVE_PATH, "port": "http"}}
    return {"tcpSocket": {"port": "http"}}


def env(values: dict[Env, str]) -> list[Object]:
    """Environment as a container's spec has it."""
    return [{"name": str(name), "value": value} for name, value in values.items()]


def _compute(workload: Workload) -> Object:
    resources = workload.resources
    found = {"requests": _quantities(resources.requests), "limits": _quantities(resources.limits)}
    return {kind: quantities for kind, quantities in found.items() if quantities}


def _quantities(compute: ComputeList) -> dict[str, str]:
    return {k: v for k, v in (("cpu", compute.cpu), ("memory", compute.memory)) if v is not None}
