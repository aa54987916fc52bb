"""Builds against a real API server: Jobs and their ends, whichever way. No kubelet runs here, so tests speak for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operators.actuators.kubernetes.build_results import REFUSAL, SUMMARY
from serving.contract import Exit
from tests.apiserver.conftest import DIGEST_A, DIGEST_B, Cluster, StartOperator, model
from tests.apiserver.test_operator import arms, newest, report, settled

STORE = ("--store", "s3://models/store")
VARIANTS: list[dict[str, Any]] = [{"name": "fp32"}, {"name": "int8", "passes": [{"quantize": {"mode": "dynamic"}}]}]
SPEC: dict[str, Any] = {"variants": VARIANTS, "evaluation": {"dataset": {"uri": "s3://models/eval.npz"}}}
FP32 = {"name": "fp32", "accepted": True, "reason": "the source itself", "digest": DIGEST_A, "gain": 1.0}
INT8 = {"name": "int8", "accepted": True, "reason": "less", "digest": DIGEST_B, "stored": "model.onnx", "gain": 3.0}
DONE = json.dumps({"store": "s3://models/store", "build": "0123", "selected": "int8", "variants": [FP32, INT8]})


def jobs(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.managed("jobs")


def begun(cluster: Cluster) -> dict[str, Any]:
    """The one Job, once it is there."""
    cluster.until("a Job makes the variants", lambda: len(jobs(cluster)) == 1)
    return jobs(cluster)[0]


def builder(cluster: Cluster, job: dict[str, Any], state: dict[str, Any]) -> str:
    """Bring the container of the Job's pod into ``state``, standing in for the kubelet; the pod's name."""

    def pods() -> list[str]:
        found = cluster.kubectl("get", "pods", "-l", f"job-name={job['metadata']['name']}", "-o", "name")
        return found.removeprefix("pod/").split()

    cluster.until("the Job has its pod", lambda: len(pods()) == 1)
    (name,) = pods()
    container = {"name": "build", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": "Running", "containerStatuses": [container]}
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    cluster.kubectl("patch", "pod", name, *patch)
    return name


def ended(code: int, message: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": "Error" if code else "Completed"}}


def source_serves(cluster: Cluster) -> None:
    """Bring the first revision to answer, standing in for kubelet and router, while the variants are made."""
    cluster.until("there is a revision", lambda: bool(cluster.get("model", "digits")["status"].get("revisions")))
    workload = newest(cluster, "digits")
    cluster.ready(workload)
    cluster.until("traffic is asked for", lambda: arms(cluster, "digits") == [workload])
    report(cluster, "digits")
    cluster.until("the source serves", lambda: cluster.condition("digits", "Ready").get("reason") == "Serving")


def variants(cluster: Cluster) -> dict[str, tuple[str, str]]:
    found = cluster.get("model", "digits").get("status", {}).get("variants", [])
    return {one["name"]: (one["state"], one["reason"]) for one in found}


def events(cluster: Cluster) -> dict[str, str]:
    """What the operator told of the Model: message by reason."""
    listed = json.loads(cluster.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    return {e["reason"]: e["note"] for e in listed if e.get("regarding", {}).get("kind") == "Model"}


def test_without_a_store_the_source_serves_and_the_status_says_what_to_set(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator()
    cluster.apply(model(**SPEC))
    settled(cluster)
    state, why = variants(cluster)["int8"]
    assert state == "NotMade"
    assert "set `store` of Penstock's chart (key `store` of ConfigMap `penstock`)" in why
    assert jobs(cluster) == []


def test_what_a_builder_said_last_decides_what_serves_and_outlives_its_pod(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator(None, *STORE)
    cluster.apply(model(**SPEC))
    job = begun(cluster)
    source_serves(cluster)
    assert cluster.condition("digits", "VariantsReady")["reason"] == "Building"
    pod = builder(cluster, job, ended(0, DONE))
    cluster.until("the best variant is chosen", lambda: variants(cluster)["int8"][0] == "Selected")
    assert jobs(cluster)[0]["metadata"]["annotations"][SUMMARY] == DONE
    cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    settled(cluster)
    assert cluster.get("model", "digits")["status"]["gain"] == "3.0x"
    fetched = cluster.kubectl("get", "deployments", "-o", "jsonpath={..initContainers[*].args}")
    assert f"s3://models/store/{DIGEST_B.replace(':', '-')}/model.onnx" in fetched
    assert events(cluster) == {
        "BuildStarted": f"Job {job['metadata']['name']} makes the variants",
        "BuildDone": "variant int8 is selected, 3.0x; all of it: s3://models/store/builds/0123/report.html",
    }


def test_a_refused_build_is_not_tried_again_by_the_same_builder_and_the_source_goes_on(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    first = start_operator(None, *STORE)
    cluster.apply(model(**SPEC))
    job = begun(cluster)
    why = "s3://models/eval.npz does not exist; check the URI"
    builder(cluster, job, ended(Exit.REFUSED, why))
    cluster.until("the refusal is told", lambda: variants(cluster).get("int8") == ("Refused", why))
    (kept,) = jobs(cluster)
    assert (kept["spec"]["suspend"], kept["metadata"]["annotations"][REFUSAL]) == (True, why)
    settled(cluster)
    assert events(cluster)["BuildRefused"] == why
    first.stop()
    start_operator(None, *STORE, "--builder-image", "penstock-builder:next")
    again = "a later builder is asked"
    cluster.until(
        again, lambda: [job["metadata"]["uid"] for job in jobs(cluster)] not in ([], [kept["metadata"]["uid"]])
    )
    assert "suspend" not in jobs(cluster)[0]["spec"] or not jobs(cluster)[0]["spec"]["suspend"]


@pytest.mark.parametrize("change", ["other variants", "none", "gone"])
def test_a_job_that_is_wanted_no_more_is_deleted(cluster: Cluster, start_operator: StartOperator, change: str) -> None:
    start_operator(None, *STORE)
    cluster.apply(model(**SPEC))
    first = begun(cluster)["metadata"]["uid"]
    policy = "NetworkPolicy/digits.build"
    assert policy in cluster.names("networkpolicies")
    if change == "gone":
        cluster.kubectl("delete", "model", "digits")
    elif change == "none":
        cluster.apply(model())
    else:
        cluster.apply(model(**{**SPEC, "variants": [VARIANTS[0], {**VARIANTS[1], "name": "small"}]}))
    cluster.until("its Job is gone", lambda: first not in {job["metadata"]["uid"] for job in jobs(cluster)})
    if change == "other variants":
        begun(cluster)
        assert policy in cluster.names("networkpolicies")
    else:
        cluster.until(
            "nothing is left of it", lambda: (jobs(cluster), policy in cluster.names("networkpolicies")) == ([], False)
        )


def test_a_later_operator_leaves_a_job_as_it_is(cluster: Cluster, start_operator: StartOperator) -> None:
    first = start_operator(None, *STORE)
    cluster.apply(model(**SPEC))
    begun(cluster)
    source_serves(cluster)
    first.stop()
    before = cluster.versions("jobs,models")
    options = ("--builder-image", "penstock-builder:next", "--builder", '{"resources": {"limits": {"memory": "4Gi"}}}')
    second = start_operator(None, *STORE, *options)
    cluster.until("it has looked", lambda: "outcome=done" in second.log.read_text())
    assert cluster.versions("jobs,models") == before
