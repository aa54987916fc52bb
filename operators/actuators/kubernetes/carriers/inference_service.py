"""Replicas as pods of a KServe InferenceService, in its Standard mode: KServe makes a Deployment and a Service of it.

Nobody but us says how many replicas there are, and our router carries the traffic, so KServe's autoscaler and ingress
are left out. Labels and annotations of the InferenceService go on to the pods. KServe names what it makes
``NAME-predictor`` and labels it ``app: isvc.NAME-predictor``, so a workload's name may have 48 characters at most, and
begins with a letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from operators.actuators.kubernetes import diagnosis, drift, makers, observing
from operators.actuators.kubernetes.carriers.base import Carrier, Object
from operators.actuators.kubernetes.carriers.deployment import STRATEGY
from operators.actuators.kubernetes.diagnosis import Cause
from operators.actuators.kubernetes.resources import INFERENCE_SERVICES
from operators.api.plan import Workload, WorkloadObserved
from operators.runtime.resource import key_of

_CONTAINER = "kserve-container"
"""How KServe knows the container that serves."""


def make(workload: Workload, owner: Object, pod: Object) -> Object:
    """Replicas of one engine as a predictor with containers of its own: the model is fetched by our container."""
    (engine,) = pod["containers"]
    predictor: Object = {**pod, "containers": [{**engine, "name": _CONTAINER}], "deploymentStrategy": STRATEGY}
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
        # Annotations go on to the pods, so one that changed with the number of replicas would replace them all.
        drift.APPLIED: drift.digest(predictor),
    }
    if workload.replicas is not None:
        predictor["minReplicas"] = workload.replicas
    labels = makers.labels(workload) | {"networking.kserve.io/visibility": "cluster-local"}
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {**makers.metadata(workload, labels, owner), "annotations": annotations},
        "spec": {"predictor": predictor},
    }


def observe(live: Object, made: Sequence[Object], pods: Sequence[Object]) -> WorkloadObserved:
    """An InferenceService as the planner sees it: the replicas of the Deployment that KServe made of it."""
    wanted = live["spec"]["predictor"].get("minReplicas", 1)
    status: Object = next((deployment.get("status", {}) for deployment in made), {})
    causes = [*_refused(live), *(cause for each in made for cause in diagnosis.of_deployment(each))]
    if not made and not causes and wanted:
        namespace, name = key_of(live)
        ask = f"`kubectl -n {namespace} describe inferenceservice {name}` says why, unless KServe's controller is down"
        return WorkloadObserved(wanted, 0, doing=f"KServe has made no Deployment of InferenceService {name} yet; {ask}")
    return observing.workload(wanted, status, pods, causes)


def _refused(live: Object) -> Iterator[Cause]:
    """What KServe says where it could not make what was asked for."""
    for condition in live.get("status", {}).get("conditions", []):
        if (condition["type"], condition["status"], condition.get("reason")) == (
            "PredictorReady",
            "False",
            "ReconcileFailed",
        ):
            said = diagnosis.plain(condition.get("message", ""))
            yield Cause("NotDeployed", f"KServe makes nothing of InferenceService {live['metadata']['name']}: {said}")


CARRIER = Carrier(
    INFERENCE_SERVICES, make, observe, install="install KServe, or choose a runtime that is deployed as a Deployment"
)
