"""The operator with a Gateway instead of our router: the API server's validation and Traefik's status are real."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from tests.apiserver.conftest import DIGEST_B, Cluster, StartOperator, model
from tests.rig import gateway
from tests.rig.control_plane import ControlPlane
from tests.rig.gateway import Traefik

KINDS = "deployments,services,configmaps,httproutes,grpcroutes"


def test_a_cluster_without_gateway_api_is_told_what_it_lacks(cluster: Cluster, start_operator: StartOperator) -> None:
    operator = start_operator(None, "--gateway", "infra/web")
    assert operator.process.wait(60) == 1
    assert operator.log.read_text().splitlines()[-1] == (
        "error: --gateway infra/web: the cluster does not serve gateways.gateway.networking.k8s.io v1; install the "
        "standard channel of Gateway API 1.1 or newer and a controller for it, or leave --gateway out"
    )


@pytest.fixture(scope="module")
def gateway_api(definitions: ControlPlane) -> Iterator[None]:
    gateway.install(definitions.kubectl, os.environ)
    yield
    definitions.kubectl("delete", "crd", *(f"{kind}.gateway.networking.k8s.io" for kind in gateway.KINDS))


@pytest.fixture
def traefik(cluster: Cluster, gateway_api: None, tmp_path: pathlib.Path) -> Iterator[Traefik]:
    plane = cluster.plane
    with gateway.running(plane.url, plane.tokens["admin"], plane.ca_file, cluster.namespace, tmp_path) as running:
        cluster.apply(running.gateway("web"))
        yield running


def ready(cluster: Cluster, name: str = "digits") -> str:
    """Bring ``name`` to its newest revision, standing in for the kubelet; gives the serving workload."""
    cluster.until("a revision starts", lambda: observed(cluster, name))
    workload = newest(cluster, name)
    cluster.ready(workload)
    cluster.until(f"{workload} serves", lambda: told(cluster, name, "RolloutComplete")[0] == "True")
    return workload


def observed(cluster: Cluster, name: str) -> bool:
    found = cluster.get("model", name)
    return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])


def newest(cluster: Cluster, name: str) -> str:
    revision = cluster.get("model", name)["status"]["revisions"][0]
    return f"{name}-{revision['name']}-{revision['variant']}"


def told(cluster: Cluster, name: str, type_: str, kind: str = "model") -> tuple[str, str, str]:
    found = cluster.condition(name, type_, kind)
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def backends(cluster: Cluster, kind: str, name: str) -> list[tuple[str, int, int]]:
    refs = cluster.get(kind, name)["spec"]["rules"][0].get("backendRefs", [])
    return [(ref["name"], ref["port"], ref["weight"]) for ref in refs]


def test_a_model_gets_routes_and_the_gateways_url_and_its_status_says_whose_word_it_takes(
    cluster: Cluster, start_operator: StartOperator, traefik: Traefik
) -> None:
    start_operator(None, "--gateway", f"{cluster.namespace}/web")
    cluster.apply(model(rollout={"analysis": {"agreement": {}}}))
    workload = ready(cluster)
    assert told(cluster, "digits", "Accepted")[1:] == (
        "PartlyActedOn",
        "model digits: this version stores, but does not act on: spec.rollout.analysis.agreement",
    )
    engine = cluster.get("deployment", workload)["spec"]["template"]["spec"]["containers"][0]
    assert "PENSTOCK_ROUTED" not in {variable["name"] for variable in engine["env"]}
    assert cluster.names(KINDS) == {
        f"Deployment/{workload}",
        f"Service/{workload}",
        "HTTPRoute/digits-route",
        "GRPCRoute/digits-route",
    }
    assert backends(cluster, "httproute", "digits-route") == [(workload, 8080, 10000)]
    assert backends(cluster, "grpcroute", "digits-route") == [(workload, 9000, 10000)]
    url = f"http://127.0.0.1:{traefik.http_port}/{cluster.namespace}/digits/v2/models/digits"
    assert cluster.get("model", "digits")["status"]["url"] == url
    revision = workload.split("-")[1]
    by = f", by the status of Gateway {cluster.namespace}/web"
    message = f"revision {revision} (default) has all traffic{by}"
    assert told(cluster, "digits", "RolloutComplete") == ("True", "Complete", message)
    assert told(cluster, "digits", "Ready") == ("True", "Serving", f"revision {revision} (default) serves")


def test_a_steady_state_with_a_gateway_makes_no_write(
    cluster: Cluster, start_operator: StartOperator, traefik: Traefik
) -> None:
    options = ("--gateway", f"{cluster.namespace}/web")
    first = start_operator(None, *options)
    cluster.apply(model(), endpoint())
    ready(cluster)
    cluster.until("the endpoint is ready", lambda: told(cluster, "reader", "Ready", "pep")[0] == "True")
    cluster.until("its route has backends", lambda: backends(cluster, "httproute", "reader-split") != [])
    first.stop()
    kinds = "models,endpoints,deployments,services,httproutes,grpcroutes"
    before = cluster.versions(kinds)
    second = start_operator(None, *options)
    cluster.until("it has looked at both", lambda: second.log.read_text().count("outcome=done") > 1)
    assert cluster.versions(kinds) == before


def test_the_old_revision_stays_until_the_gateways_status_has_settled(
    cluster: Cluster, start_operator: StartOperator, traefik: Traefik
) -> None:
    start_operator(None, "--gateway", f"{cluster.namespace}/web")
    cluster.apply(model())
    old = ready(cluster)
    cluster.apply(model(digest=DIGEST_B))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    new = newest(cluster, "digits")
    cluster.ready(new)
    cluster.until("traffic is asked to move", lambda: backends(cluster, "httproute", "digits-route")[0][0] == new)
    revisions = {name: name.split("-")[1] for name in (old, new)}
    waits = (
        f"Gateway {cluster.namespace}/web has taken up the routes, which its proxies get 5 s to follow",
        f"traffic is moving to revision {revisions[new]}: ",
    )
    cluster.until(
        "the status waits",
        lambda: told(cluster, "digits", "RolloutComplete") == ("False", "TrafficMoving", waits[1] + waits[0]),
    )
    assert f"Deployment/{old}" in cluster.names(KINDS)
    assert told(cluster, "digits", "Ready")[:2] == ("True", "TrafficMoving")
    cluster.until("the old one is gone", lambda: f"Deployment/{old}" not in cluster.names(KINDS))
    told_weights = [(r["state"], r["weight"]) for r in cluster.get("model", "digits")["status"]["revisions"]]
    assert told_weights == [("Serving", 10000), ("Retired", 0)]


def test_a_gateway_that_lets_nobody_in_is_a_condition(
    cluster: Cluster, start_operator: StartOperator, traefik: Traefik
) -> None:
    cluster.apply(traefik.gateway("web", namespaces={"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}))
    start_operator(None, "--gateway", f"{cluster.namespace}/web")
    cluster.apply(model())
    cluster.until("a revision starts", lambda: observed(cluster, "digits"))
    cluster.ready(newest(cluster, "digits"))
    message = (
        f"model digits: Gateway {cluster.namespace}/web does not take up HTTPRoute digits-route: Accepted is False: "
        f"NotAllowedByListeners; it needs a listener that allows HTTPRoutes of namespace {cluster.namespace}, "
        "and those alone"
    )
    cluster.until("it is told", lambda: told(cluster, "digits", "Ready") == ("False", "NotRouted", message))


def endpoint(**spec: object) -> dict[str, object]:
    arms = [{"name": "all", "model": "digits", "weight": 100}]
    kind = {"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": {"name": "reader"}}
    return {**kind, "spec": {"arms": arms, **spec}}


def test_an_endpoint_follows_its_models_routes(
    cluster: Cluster, start_operator: StartOperator, traefik: Traefik
) -> None:
    start_operator(None, "--gateway", f"{cluster.namespace}/web")
    cluster.apply(model(), endpoint())
    old = ready(cluster)
    cluster.until(
        "its route follows", lambda: backends(cluster, "httproute", "reader-split") == [(old, 8080, 1_000_000)]
    )
    cluster.apply(model(digest=DIGEST_B))
    cluster.until("the next revision starts", lambda: newest(cluster, "digits") != old)
    new = ready(cluster)
    assert backends(cluster, "httproute", "reader-split") == [(new, 8080, 1_000_000)]
    cluster.apply(endpoint(assignment={"header": "x-user"}))
    cluster.until("sticky is refused", lambda: told(cluster, "reader", "Accepted", "pep")[1] == "NotSupported")
    cluster.until("it has no route", lambda: "HTTPRoute/reader-split" not in cluster.names(KINDS))
