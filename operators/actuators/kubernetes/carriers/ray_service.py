"""Replicas as workers of a RayService, each with one replica of Ray Serve: KubeRay makes a RayCluster of it.

The head of the cluster controls and serves nothing, so the number of replicas is that of the workers, and nobody but
us says it: Ray's autoscaler stays off. KubeRay leaves the number in its RayCluster alone, for it takes it to be the
autoscaler's, so it is said there once more. Each revision is a RayService of its own and our router moves the
traffic, so KubeRay's upgrades stay off too. Ray runs whatever is sent to it: it asks for a token, which KubeRay draws
and keeps in a Secret of each cluster, and a NetworkPolicy lets nobody near but KubeRay and the workload's own pods.
The image needs ``bash``, which KubeRay has start Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from operators.actuators.kubernetes import diagnosis, makers, observing
from operators.actuators.kubernetes.carriers.base import Carrier, Object
from operators.actuators.kubernetes.diagnosis import Cause
from operators.actuators.kubernetes.resources import RAY_CLUSTERS, RAY_SERVICES
from operators.api.plan import Workload, WorkloadObserved
from operators.api.routes import WORKLOAD_LABEL
from operators.runtime.resource import Resource, key_of
from serving import contract

RAY_VERSION = "2.60.0"
"""KubeRay asks for it before it makes tokens."""
_SERVES = {"ray.io/serve": "true"}
_KUBERAY = {"app.kubernetes.io/name": "kuberay-operator"}
_DASHBOARD_PORT = 8265
_AGENT_PORT = 52365
_ALIVE: Object = {"httpGet": {"path": "/api/healthz", "port": _AGENT_PORT}, "timeoutSeconds": 5, "periodSeconds": 5}
_STARTS: Object = {**_ALIVE, "periodSeconds": 2, "failureThreshold": 300}
_HEAD_RESOURCES: Object = {"requests": {"cpu": "200m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}


def make(workload: Workload, owner: Object, pod: Object) -> Object:
    """A RayService with a worker for each replica; the model is fetched by each worker."""
    replicas = 1 if workload.replicas is None else workload.replicas
    (engine,) = pod["containers"]
    # What KubeRay has the container do is `ray start`.
    ray = {name: value for name, value in engine.items() if name not in ("command", "args")}
    worker = {**ray, "livenessProbe": {**_ALIVE, "failureThreshold": 6}}
    head = {
        "name": "head",
        "image": ray["image"],
        "readinessProbe": _ALIVE,
        "livenessProbe": {**_ALIVE, "failureThreshold": 6},
        "startupProbe": _STARTS,
        "resources": _HEAD_RESOURCES,
        "terminationMessagePolicy": ray["terminationMessagePolicy"],
        "securityContext": ray["securityContext"],
        "volumeMounts": [mount for mount in ray["volumeMounts"] if mount["name"] == "tmp"],
    }
    without_model = {
        **{name: value for name, value in pod.items() if name != "initContainers"},
        "containers": [head],
        "volumes": [volume for volume in pod["volumes"] if volume["name"] == "tmp"],
    }
    template: Object = {"metadata": {"labels": makers.labels(workload)}}
    return {
        "apiVersion": RAY_SERVICES.api_version,
        "kind": RAY_SERVICES.kind,
        "metadata": makers.metadata(workload, makers.labels(workload), owner),
        "spec": {
            "serveConfigV2": json.dumps(_application(workload, replicas), sort_keys=True),
            "upgradeStrategy": {"type": "None"},
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": RAY_VERSION,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": False,
                "headGroupSpec": {
                    "serviceType": "ClusterIP",
                    "rayStartParams": {"num-cpus": "0", "disable-usage-stats": "true"},
                    "template": {**template, "spec": without_model},
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "replicas",
                        "replicas": replicas,
                        "minReplicas": 0,
                        # One processor, as Ray counts them, is what a replica asks for: so each worker has one replica.
                        "rayStartParams": {"num-cpus": "1", "disable-usage-stats": "true"},
                        "template": {**template, "spec": {**pod, "containers": [worker]}},
                    }
                ],
            },
        },
    }


def _application(workload: Workload, replicas: int) -> Object:
    """What Ray Serve is to run, as ``serveConfigV2`` says it."""
    ports = workload.runtime.ports
    arguments = {
        "path": contract.MODEL_DIR,
        "name": workload.model,
        "revision": workload.revision,
        "variant": workload.variant,
        **({"settings": workload.settings} if workload.settings else {}),
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": ports.http, "keep_alive_timeout_s": 620},
        "grpc_options": {"port": ports.grpc, "grpc_servicer_functions": ["serving.rayserve.proxy.add_methods"]},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "penstock",
                "route_prefix": "/",
                "import_path": "serving.rayserve.application:build",
                "args": arguments,
                "deployments": [
                    {"name": "Model", "num_replicas": replicas, "ray_actor_options": {"num_cpus": 1}},
                ],
            }
        ],
    }


def observe(live: Object, made: Sequence[Object], pods: Sequence[Object]) -> WorkloadObserved:
    """A RayService as the planner sees it: its workers that are ready, which is to say that a replica answers there."""
    (group,) = live["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    wanted: int = group["replicas"]
    workers = [pod for pod in pods if _SERVES.items() <= pod["metadata"].get("labels", {}).items()]
    ready = sum(map(observing.is_ready, workers))
    causes = list(_refused(live))
    if not pods and not causes and wanted:
        namespace, name = key_of(live)
        ask = f"`kubectl -n {namespace} describe rayservice {name}` says why, unless KubeRay is down"
        return WorkloadObserved(wanted, 0, doing=f"KubeRay has made no pod of RayService {name} yet; {ask}")
    status = {"readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": max(0, wanted - ready)}
    return observing.workload(wanted, status, pods, causes)


def adjust(live: Object, wanted: Object) -> Iterator[tuple[Resource, Object]]:
    """The workers of the RayCluster that KubeRay made, where it wants another number of them."""
    groups = wanted["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    for status in _clusters(live):
        name, has = status.get("rayClusterName"), status.get("rayClusterStatus", {})
        if name and has and has.get("desiredWorkerReplicas", 0) != groups[0]["replicas"]:
            yield (
                RAY_CLUSTERS,
                {
                    "apiVersion": RAY_CLUSTERS.api_version,
                    "kind": RAY_CLUSTERS.kind,
                    "metadata": {"name": name, "namespace": live["metadata"]["namespace"]},
                    "spec": {"workerGroupSpecs": groups},
                },
            )


def _clusters(live: Object) -> list[Object]:
    status = live.get("status", {})
    return [status[kind] for kind in ("activeServiceStatus", "pendingServiceStatus") if kind in status]


def _refused(live: Object) -> Iterator[Cause]:
    """What KubeRay says where it makes nothing of it, and Serve where it cannot deploy."""
    name, status = live["metadata"]["name"], live.get("status", {})
    for condition in status.get("conditions", []):
        if condition.get("reason") == "ValidationFailed":
            said = diagnosis.plain(condition.get("message", ""))
            yield Cause("NotDeployed", f"KubeRay makes nothing of RayService {name}: {said}")
    for cluster in _clusters(live):
        for application in cluster.get("applicationStatuses", {}).values():
            if application.get("status") == "DEPLOY_FAILED":
                said = diagnosis.plain(application.get("message", ""))
                yield Cause("NotDeployed", f"Ray Serve cannot deploy RayService {name}: {said}")


def reached(workload: Workload) -> list[Object]:
    """Who reaches a cluster beside those who ask for inferences: its own pods, and KubeRay the dashboard."""
    own = {"podSelector": {"matchLabels": {WORKLOAD_LABEL: workload.name}}}
    kuberay = {"namespaceSelector": {}, "podSelector": {"matchLabels": _KUBERAY}}
    return [{"from": [own]}, {"from": [kuberay], "ports": [{"protocol": "TCP", "port": _DASHBOARD_PORT}]}]


CARRIER = Carrier(
    RAY_SERVICES,
    make,
    observe,
    selects=_SERVES,
    install="install KubeRay, or choose a runtime that is deployed as a Deployment",
    reached=reached,
    adjust=lambda live, wanted: list(adjust(live, wanted)),
)
