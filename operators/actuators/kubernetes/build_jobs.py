"""From a build to Kubernetes objects: the Job that makes it, who may ask it how far it is.

The Job's pod has no access to the API: what it is asked stands in its arguments, what came of it is its last words, and
how far it is it answers on a port. Its stages lie on an emptyDir, so a container that was killed goes on after the last
one that was finished; on another node it begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlparse

from kubernetes.utils.quantity import parse_quantity

from operators.actuators.kubernetes import makers
from operators.actuators.kubernetes.resources import JOBS, NETWORK_POLICIES
from operators.api.base import GROUP
from operators.api.builder import Builder
from operators.api.plan import Build, Key
from operators.api.routes import MANAGED_BY, MODEL_LABEL
from serving import contract
from serving.contract import Env

Object = dict[str, Any]

BUILD = "build"
"""The container."""
BUILD_LABEL = f"{GROUP}/build"
"""On a Job and its pods: the build's name."""
BUILT_FOR_LABEL = f"{GROUP}/built-for"
"""On the pods: the Model's name. Not ``MODEL_LABEL``, which selects what serves."""
OPERATOR_LABELS = {"app.kubernetes.io/name": "penstock", "app.kubernetes.io/component": "operator"}

_TRIES = 12
"""Restarts of the container before the Job gives up; kubelets wait up to 5 minutes between them."""
_WORK_DIR, _CLAIMS_DIR = "/mnt/build", "/mnt/claims"
_KILL_GRACE_S = 5
_STEP_SHARE = 0.75
"""Of the container's memory, for what one step may take: the builder itself and cached pages need the rest."""


def job_name(key: Key, build: Build) -> str:
    """Name of the Job that makes ``build`` for the Model ``key``."""
    return f"{key.name}-build-{build.name}"


def job(key: Key, build: Build, owner: Object, builder: Builder, image: str, store: str) -> Object:
    """The Job, under the ``restricted`` Pod Security Standard."""
    labels = MANAGED_BY | {BUILD_LABEL: build.name}
    pod_metadata: Object = {"labels": labels | {BUILT_FOR_LABEL: key.name}}
    if builder.pod_annotations:
        pod_metadata["annotations"] = builder.pod_annotations
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": job_name(key, build),
            "namespace": key.namespace,
            "labels": labels | {MODEL_LABEL: key.name},
            "ownerReferences": [owner],
        },
        "spec": {
            "backoffLimit": _TRIES,
            "activeDeadlineSeconds": builder.deadline_seconds,
            "template": {"metadata": pod_metadata, "spec": _pod(build, builder, image, store)},
        },
    }


def _pod(build: Build, builder: Builder, image: str, store: str) -> Object:
    uris = _uris(json.loads(build.document))
    volumes: list[Object] = [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[Object] = [{"name": "work", "mountPath": _WORK_DIR}, {"name": "tmp", "mountPath": "/tmp"}]
    claims = sorted({urlparse(uri).netloc for uri in uris if uri.startswith("pvc://")})
    for index, claim in enumerate(claims):
        name = f"claim-{index}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": name, "mountPath": f"{_CLAIMS_DIR}/{claim}", "readOnly": True})
    env: dict[Env, str] = {Env.TERMINATION_LOG: "/dev/termination-log"}
    if any(uri.startswith("oci://") for uri in uris):
        volume, mount, env[Env.DOCKER_CONFIG] = makers.registry_logins()
        volumes.append(volume)
        mounts.append(mount)
    # Kubernetes would put the value of a variable in the place of $(NAME).
    arguments = ["-m", "serving", "build", "--spec", build.document.replace("$", "$$"), "--store", _WORK_DIR]
    arguments += ["--publish", store, "--progress-port", str(contract.BUILD_PORT)]
    if claims:
        arguments += ["--claims", _CLAIMS_DIR]
    if (memory := builder.resources.limits.get("memory")) is not None:
        most = parse_quantity(memory)  # type: ignore[no-untyped-call]
        arguments += ["--memory", str(int(float(most) * _STEP_SHARE))]
    resources = builder.resources
    placement = {
        "nodeSelector": builder.node_selector,
        "tolerations": list(builder.tolerations),
        "affinity": builder.affinity,
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": _KILL_GRACE_S,
        "securityContext": makers.POD_SECURITY,
        **{name: value for name, value in placement.items() if value},
        "containers": [
            {
                "name": BUILD,
                "image": image,
                "args": arguments,
                "env": makers.env(env),
                "envFrom": [makers.STORAGE_KEYS],
                "ports": [{"name": "progress", "containerPort": contract.BUILD_PORT, "protocol": "TCP"}],
                "volumeMounts": mounts,
                "resources": {
                    kind: amounts
                    for kind, amounts in (("requests", resources.requests), ("limits", resources.limits))
                    if amounts
                },
                "terminationMessagePolicy": makers.LAST_WORDS,
                "securityContext": makers.RESTRICTED,
            }
        ],
        "volumes": volumes,
    }


def _uris(document: Any) -> list[str]:
    """Every URI that a build reads."""
    if isinstance(document, list):
        return [uri for item in document for uri in _uris(item)]
    if not isinstance(document, dict):
        return []
    own = [document["uri"]] if isinstance(document.get("uri"), str) else []
    return own + [uri for item in document.values() for uri in _uris(item)]


def network_policy(key: Key, builds: Sequence[Build], operator_namespace: str, owner: Object) -> Object:
    """Nobody reaches a builder but the operator, which asks it how far it is. What it reaches is left open, since an
    artifact may be anywhere.
    """
    source = makers.pods_of(operator_namespace, OPERATOR_LABELS)
    port = {"protocol": "TCP", "port": contract.BUILD_PORT}
    chosen = {"key": BUILD_LABEL, "operator": "In", "values": sorted(build.name for build in builds)}
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.kind,
        "metadata": {
            # With a dot, which no Model's name has.
            "name": f"{key.name}.build",
            "namespace": key.namespace,
            "labels": MANAGED_BY | {MODEL_LABEL: key.name},
            "ownerReferences": [owner],
        },
        "spec": {
            "podSelector": {"matchLabels": MANAGED_BY, "matchExpressions": [chosen]},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [source], "ports": [port]}],
        },
    }
