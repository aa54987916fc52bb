"""The operator against a real API server; the garbage collector and the deployment controller are real too."""

from __future__ import annotations

import json
import subprocess

import httpx
import pytest

from operators.api import routes
from operators.api.plan import Arm, RouteObserved
from tests.apiserver.conftest import DIGEST_B, Cluster, StartOperator, model
from tests.rig.receiver import receiving


def settled(cluster: Cluster, name: str = "digits") -> str:
    """Bring ``name`` to Ready, standing in for kubelet and router; gives the serving workload."""
    cluster.until("the operator has seen the spec", lambda: _observed(cluster, name))
    workload = newest(cluster, name)
    cluster.ready(workload)
    cluster.until("traffic moves", lambda: arms(cluster, name) == [workload])
    report(cluster, name)
    cluster.until("the rollout completes", lambda: status(cluster, name, "RolloutComplete") == "True")
    return workload


def _observed(cluster: Cluster, name: str) -> bool:
    found = cluster.get("model", name)
    seen: int = found.get("status", {}).get("observedGeneration", 0)
    return bool(seen == found["metadata"]["generation"] and found["status"]["revisions"])


def newest(cluster: Cluster, name: str) -> str:
    revision = cluster.get("model", name)["status"]["revisions"][0]
    return f"{name}-{revision['name']}-{revision['variant']}"


def route(cluster: Cluster, name: str) -> list[dict[str, object]]:
    data = cluster.get("configmap", f"{name}-route")["data"]["route.json"]
    found: list[dict[str, object]] = json.loads(data)["arms"]
    return found


def arms(cluster: Cluster, name: str) -> list[object]:
    return [arm["workload"] for arm in route(cluster, name)]


def report(cluster: Cluster, name: str) -> None:
    """What a router writes once it does what the route says."""
    asked = RouteObserved(tuple(Arm(**arm) for arm in route(cluster, name)))  # type: ignore[arg-type]
    pod = cluster.router_pod("router")["metadata"]
    written = routes.report(cluster.namespace, "router", pod["uid"], {(cluster.namespace, name): asked})
    cluster.kubectl("apply", "--server-side", "--field-manager", name, "-f", "-", stdin=json.dumps(written))


def status(cluster: Cluster, name: str, type_: str) -> object:
    return cluster.condition(name, type_).get("status")


def test_applying_a_model_makes_its_children_and_a_url(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    cluster.apply(model(resources={"requests": {"cpu": "0.5", "memory": "1024Mi"}}))
    workload = settled(cluster)
    assert cluster.names() == {f"Deployment/{workload}", f"Service/{workload}", "ConfigMap/digits-route"}
    url = f"http://penstock-router.penstock-system/{cluster.namespace}/digits/v2/models/digits"
    assert cluster.get("model", "digits")["status"]["url"] == url
    line = cluster.kubectl("get", "models", "digits", "--no-headers").split()
    revision = cluster.get("model", "digits")["status"]["revision"]
    assert line[:-1] == ["digits", "True", "Serving", "default", revision, "1", url]


def test_a_steady_state_makes_no_write(cluster: Cluster, start_operator: StartOperator) -> None:
    first = start_operator()
    cluster.apply(model(resources={"requests": {"cpu": "0.5", "memory": "1024Mi"}}))
    workload = settled(cluster)
    first.stop()
    before = cluster.versions()
    # A new operator looks at everything afresh; a foreign label makes it look once more.
    second = start_operator()
    cluster.until("it has looked", lambda: "outcome=done" in second.log.read_text())
    assert cluster.versions() == before
    passes = second.log.read_text().count("outcome=done")
    cluster.kubectl("label", "service", workload, "team=blue")
    labelled = cluster.versions()
    cluster.until("it has looked again", lambda: second.log.read_text().count("outcome=done") > passes)
    assert cluster.versions() == labelled
    assert {name for name in before if before[name] != labelled[name]} == {f"Service/{workload}"}


def test_drift_is_repaired_and_foreign_fields_are_kept(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    cluster.apply(model())
    workload = settled(cluster)
    image = '[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "evil:1"}]'
    cluster.kubectl("annotate", "deployment", workload, "example.com/owner=blue")
    cluster.kubectl("patch", "deployment", workload, "--type=json", "-p", image)
    cluster.until(
        "the image is ours again",
        lambda: (
            cluster.get("deployment", workload)["spec"]["template"]["spec"]["containers"][0]["image"]
            == "penstock-serve:latest"
        ),
    )
    assert cluster.get("deployment", workload)["metadata"]["annotations"]["example.com/owner"] == "blue"
    uid = cluster.get("service", workload)["metadata"]["uid"]
    cluster.kubectl("delete", "service", workload)
    cluster.until(
        "the service is back",
        lambda: any(
            item["kind"] == "Service" and item["metadata"]["uid"] != uid for item in cluster.managed("services")
        ),
    )


def test_a_network_policy_shields_the_pods_and_is_repaired(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    cluster.apply(model())
    settled(cluster)
    assert cluster.names("networkpolicies") == {"NetworkPolicy/digits"}
    open_to_all = '[{"op": "replace", "path": "/spec/ingress", "value": [{}]}]'
    cluster.kubectl("patch", "networkpolicy", "digits", "--type=json", "-p", open_to_all)
    cluster.until("it is ours again", lambda: "from" in cluster.get("networkpolicy", "digits")["spec"]["ingress"][0])


def test_deleting_a_model_leaves_nothing(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    cluster.apply(model())
    settled(cluster)
    cluster.kubectl("delete", "model", "digits")
    kinds = "deployments,services,configmaps,networkpolicies,pods"
    cluster.until("children and pods are gone", lambda: not cluster.names(kinds))


def test_a_model_deleted_while_no_operator_runs_leaves_nothing(cluster: Cluster, start_operator: StartOperator) -> None:
    operator = start_operator()
    cluster.apply(model())
    settled(cluster)
    operator.stop()
    cluster.kubectl("delete", "model", "digits")
    start_operator()
    cluster.until("children are gone", lambda: not cluster.names())


def test_the_next_revision_replaces_the_old_one_only_after_the_router_says_so(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator()
    cluster.apply(model())
    old = settled(cluster)
    cluster.apply(model(digest=DIGEST_B))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    new = newest(cluster, "digits")
    cluster.until("both exist", lambda: {f"Deployment/{old}", f"Deployment/{new}"} <= cluster.names())
    assert arms(cluster, "digits") == [old]
    cluster.ready(new)
    cluster.until("traffic is asked to move", lambda: arms(cluster, "digits") == [new])
    assert f"Deployment/{old}" in cluster.names(), "the router has not said that it moved"
    report(cluster, "digits")
    cluster.until("the old one is gone", lambda: f"Deployment/{old}" not in cluster.names())
    revisions = cluster.get("model", "digits")["status"]["revisions"]
    assert [(r["state"], r["weight"]) for r in revisions] == [("Serving", 10000), ("Retired", 0)]


def test_an_operator_killed_during_a_rollout_is_continued_by_the_next(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    first = start_operator()
    cluster.apply(model())
    old = settled(cluster)
    cluster.apply(model(digest=DIGEST_B))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    first.kill()
    start_operator()
    new = settled(cluster)
    assert new != old
    cluster.until("the old one is gone", lambda: f"Deployment/{old}" not in cluster.names())


def test_a_rollout_moves_by_steps_goes_on_after_a_crash_and_is_told_in_events(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    def rollout() -> dict[str, object]:
        found: dict[str, object] = cluster.get("model", "digits")["status"].get("rollout") or {}
        return found

    def shares() -> list[object]:
        return sorted((arm["weight"] for arm in route(cluster, "digits")), key=str)

    steps = {"steps": [{"weight": 10}, {"weight": 50, "for": "1h"}]}
    first = start_operator()
    cluster.apply(model(rollout=steps))
    old = settled(cluster)
    cluster.apply(model(digest=DIGEST_B, rollout=steps))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    new = newest(cluster, "digits")
    assert arms(cluster, "digits") == [old], "it is not ready"
    cluster.ready(new)
    cluster.until("the first step is asked for", lambda: shares() == [1000, 9000])
    first.kill()
    report(cluster, "digits")
    start_operator()
    cluster.until("the second step is asked for", lambda: shares() == [5000, 5000])
    report(cluster, "digits")
    cluster.until("the second step is reached", lambda: (rollout()["step"], rollout()["reached"]) == (1, True))
    abort = f"penstock.dev/abort={rollout()['revision']}@{rollout()['began']}"
    cluster.kubectl("annotate", "model", "digits", abort)
    cluster.until("traffic goes back", lambda: arms(cluster, "digits") == [old])
    assert f"Deployment/{new}" in cluster.names(), "the router still sends there"
    report(cluster, "digits")
    cluster.until("its replicas go", lambda: f"Deployment/{new}" not in cluster.names())
    assert cluster.condition("digits", "RolloutComplete")["reason"] == "RolledBack"
    events = json.loads(cluster.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    told = sorted(event["reason"] for event in events if event["regarding"]["name"] == "digits")
    assert told == ["RolledBack", "RolloutBegun", "RolloutStep"]


def test_a_candidate_gets_copies_of_requests_as_soon_as_it_is_ready(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    def mirror() -> object:
        return json.loads(cluster.get("configmap", "digits-route")["data"]["route.json"]).get("mirror")

    agreement = {"percent": 50, "tolerance": 0.01}
    rollout = {"steps": [{"weight": 10}], "analysis": {"agreement": agreement}}
    start_operator()
    cluster.apply(model(rollout=rollout))
    old = settled(cluster)
    assert (cluster.condition("digits", "Accepted")["reason"], mirror()) == ("Accepted", None)
    cluster.apply(model(digest=DIGEST_B, rollout=rollout))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    new = newest(cluster, "digits")
    assert mirror() is None, "it is not ready"
    cluster.ready(new)
    cluster.until("requests are copied", lambda: mirror() is not None)
    revision = cluster.get("model", "digits")["status"]["rollout"]["revision"]
    assert mirror() == {"revision": revision, "weight": 5000, "compare": {"tolerance": 0.01}}
    assert {arm["workload"]: arm["weight"] for arm in route(cluster, "digits")} == {old: 10_000, new: 0}
    engine = cluster.get("deployment", old)["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "PENSTOCK_ROUTED", "value": "1"} in engine["env"]


def test_a_rollout_is_told_to_whom_a_url_names(cluster: Cluster, start_operator: StartOperator) -> None:
    steps = {"steps": [{"weight": 10, "for": "1h"}]}
    with receiving(refuses=1) as receiver:
        start_operator(None, "--webhook-url", receiver.url)
        cluster.apply(model(rollout=steps))
        old = settled(cluster)
        cluster.apply(model(digest=DIGEST_B, rollout=steps))
        cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
        cluster.until("the beginning is told, and again", lambda: len(receiver.came) == 2)
        first, again = receiver.came
        assert (first["type"], first["id"]) == ("dev.penstock.rollout.begun", again["id"])
        assert first["source"] == f"/apis/penstock.dev/v1alpha1/namespaces/{cluster.namespace}/models/digits"
        rollout = cluster.get("model", "digits")["status"]["rollout"]
        assert (again["subject"], again["data"]["rollout"]["began"]) == (rollout["revision"], rollout["began"])


def test_a_second_operator_takes_over_when_the_leader_goes(cluster: Cluster, start_operator: StartOperator) -> None:
    leader = start_operator()
    cluster.until("the first leads", lambda: "leading=true" in leader.log.read_text())
    standby = start_operator()
    cluster.until("the second runs", lambda: "health=" in standby.log.read_text())
    cluster.until("the second is healthy", lambda: httpx.get(f"{standby.health}/healthz").status_code == 200)
    assert "leading=true" not in standby.log.read_text()
    assert leader.stop() == 0
    cluster.until("the second leads", lambda: "leading=true" in standby.log.read_text())
    cluster.apply(model())
    settled(cluster)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"uri": "s3://models/digits.onnx"},
            "s3://models/digits.onnx: digest is not set, and replicas started at different times could serve "
            "different bytes; set digest to the `sha256:` that `penstock fetch --uri URI --to DIR` prints",
        ),
        (
            {"uri": "file:///models/digits.onnx", "digest": DIGEST_B},
            "file:///models/digits.onnx is on somebody's machine, where no pod can read it; use `penstock apply`, "
            "which uploads it, or put it where https://, oci://, pvc://, s3:// name it",
        ),
        (
            {"uri": "gs://models/digits.onnx", "digest": DIGEST_B},
            "gs://models/digits.onnx: this version fetches https://, oci://, pvc://, s3:// in a cluster; "
            "put the artifact there",
        ),
    ],
    ids=["no digest", "local file", "no client for it"],
)
def test_a_source_that_pods_cannot_fetch_is_a_condition(
    cluster: Cluster, start_operator: StartOperator, source: dict[str, str], message: str
) -> None:
    start_operator()
    cluster.apply(model(source=source))
    cluster.until("it is told", lambda: status(cluster, "digits", "Ready") == "False")
    assert cluster.condition("digits", "VariantsReady")["message"] == (
        f"model digits: no variant can be served: variant default: {message}"
    )
    assert cluster.names("deployments,services") == set()


def test_a_child_name_that_is_taken_is_a_condition_and_the_other_child_stays_as_it_is(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    cluster.kubectl("create", "configmap", "digits-route", "--from-literal=mine=1")
    cluster.kubectl("label", "configmap", "digits-route", "app.kubernetes.io/managed-by=penstock")
    start_operator()
    cluster.apply(model())
    cluster.until("it is told", lambda: cluster.condition("digits", "RolloutComplete").get("reason") == "NotApplied")
    assert cluster.condition("digits", "RolloutComplete")["message"] == (
        "a change could not be made, and is tried again: ConfigMap digits-route exists and belongs to somebody "
        "else; rename it or the object that needs this name"
    )
    assert cluster.get("configmap", "digits-route")["data"] == {"mine": "1"}
    cluster.until("its siblings exist", lambda: any(n.startswith("Deployment/") for n in cluster.names()))


def quota(**hard: str) -> dict[str, object]:
    limits = {name.replace("__", "/").replace("_", "."): most for name, most in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": limits}}


def test_a_quota_that_refuses_a_deployment_is_told_once_and_the_model_starts_when_it_is_raised(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    cluster.apply(quota(count__deployments_apps="0"))
    cluster.until("the quota counts", lambda: "used" in cluster.get("resourcequota", "small").get("status", {}))
    operator = start_operator()
    cluster.apply(model())
    cluster.until("it is told", lambda: cluster.condition("digits", "Ready").get("reason") == "NotApplied")
    workload = newest(cluster, "digits")
    message = (
        f'a change could not be made, and is tried again: deployments.apps "{workload}" is forbidden: '
        "exceeded quota: small, requested: "
        "count/deployments.apps=1, used: count/deployments.apps=0, limited: count/deployments.apps=0; raise "
        "ResourceQuota small, or lower what the namespace uses"
    )
    assert cluster.condition("digits", "Ready")["message"] == message
    assert cluster.condition("digits", "RolloutComplete")["message"] == message
    told, tries = cluster.versions(), operator.log.read_text().count("outcome=failed")
    # Each wait is up to twice the one before.
    again = "it was tried again three times"
    cluster.until(again, lambda: operator.log.read_text().count("outcome=failed") >= tries + 3, deadline_s=240)
    assert cluster.versions() == told
    cluster.apply(quota(count__deployments_apps="1"))
    cluster.until("it is made", lambda: f"Deployment/{workload}" in cluster.names())
    settled(cluster)


def test_a_quota_that_refuses_pods_is_told_with_its_name_and_what_served_goes_on(
    cluster: Cluster, start_operator: StartOperator
) -> None:
    start_operator()
    cluster.apply(model())
    old = settled(cluster)
    # One is the router's.
    cluster.apply(quota(pods="2"))
    cluster.until("the quota counts", lambda: "used" in cluster.get("resourcequota", "small").get("status", {}))
    cluster.apply(model(digest=DIGEST_B))
    cluster.until("it is told", lambda: cluster.condition("digits", "RolloutComplete")["reason"] == "QuotaExceeded")
    revision, previous = (r["name"] for r in cluster.get("model", "digits")["status"]["revisions"])
    message = (
        f"model digits: revision {revision} (default) is starting: pods cannot be created: exceeded quota: small, "
        "requested: pods=1, used: pods=2, limited: pods=2; raise ResourceQuota small, or lower what the namespace uses"
    )
    ready = cluster.condition("digits", "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "ServingPrevious")
    assert ready["message"] == f"revision {previous} goes on serving; {message}"
    assert cluster.condition("digits", "RolloutComplete")["message"] == message
    assert arms(cluster, "digits") == [old]


def test_replicas_follow_the_scale_subresource(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    cluster.apply(model())
    workload = settled(cluster)
    cluster.kubectl("scale", "model", "digits", "--replicas=3")
    cluster.until("three are wanted", lambda: cluster.get("deployment", workload)["spec"]["replicas"] == 3)
    cluster.ready(workload)
    cluster.until("three answer", lambda: cluster.get("model", "digits")["status"]["readyReplicas"] == 3)


def test_an_endpoint_follows_its_models(cluster: Cluster, start_operator: StartOperator) -> None:
    start_operator()
    arms = [{"name": "control", "model": "digits", "weight": 90}, {"name": "new", "model": "wide", "weight": 10}]
    cluster.apply(
        {
            "apiVersion": "penstock.dev/v1alpha1",
            "kind": "Endpoint",
            "metadata": {"name": "reader"},
            "spec": {"arms": arms},
        }
    )
    cluster.until("no arm answers yet", lambda: cluster.condition("reader", "Ready", "pep").get("status") == "False")
    cluster.apply(model(), model("wide", DIGEST_B))
    settled(cluster, "digits")
    settled(cluster, "wide")
    cluster.until("both arms answer", lambda: cluster.condition("reader", "Ready", "pep")["reason"] == "Serving")
    split = json.loads(cluster.get("configmap", "reader-split")["data"]["route.json"])
    assert split == {
        "shares": [["digits", 9000], ["wide", 1000]],
        "share_arms": ["control", "new"],
        "names": {"control": "digits", "new": "wide"},
    }


def test_pods_are_restricted(cluster: Cluster, start_operator: StartOperator) -> None:
    cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce=restricted")
    start_operator()
    cluster.apply(model(source={"uri": "pvc://store/digits", "digest": DIGEST_B}))
    workload = settled(cluster)
    pod = cluster.get("deployment", workload)["spec"]["template"]["spec"]
    fetch = pod["initContainers"][0]
    assert fetch["args"] == ["fetch", "--uri", "file:///mnt/source/digits", "--digest", DIGEST_B, "--to", "/mnt/models"]
    assert pod["automountServiceAccountToken"] is False
    with pytest.raises(subprocess.SubprocessError, match="violates PodSecurity"):
        cluster.kubectl("run", "shell", "--image=busybox", "--privileged")
