"""``penstock router`` against a real API server, whose controller makes the EndpointSlices."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.server
import json
import pathlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from operators.api import routes
from operators.api.plan import RouteObserved
from operators.router.collecting import BATCH
from tests.apiserver.conftest import DIGEST_B, Cluster, Running, StartOperator, StartRouter, model
from tests.rig import certificates, fault_proxy, ports
from tests.rig.control_plane import write_kubeconfig
from tests.rig.fault_proxy import Rule, freeze


def own_address() -> str:
    """One of this machine's addresses; an API server refuses loopback as an endpoint."""
    for address in (each for of in psutil.net_if_addrs().values() for each in of):
        if address.family == socket.AF_INET and not address.address.startswith(("127.", "169.254.")):
            return address.address
    raise AssertionError("this machine has no address but loopback; give it one, such as 192.0.2.1 on a bridge")


class Server(http.server.ThreadingHTTPServer):
    """Answers for every pod that is said to run; holds its answers while told to."""

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.go = threading.Event()
        self.go.set()
        self.held = threading.Event()
        self.mark: str | None = None
        """What the last request said of copies."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.held.set()
        self.server.mark = self.headers["penstock-mirror"]
        self.server.go.wait()
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclasses.dataclass
class Routed:
    """A cluster with one router, and pods of Models that are said to run where ``server`` is."""

    cluster: Cluster
    server: Server
    pod: dict[str, Any]
    start: StartRouter
    options: tuple[str, ...]
    url: str

    def router(self, kubeconfig: pathlib.Path | None = None) -> Running:
        started = self.start(self.pod, *self.options, kubeconfig=kubeconfig)
        self.cluster.until("the router runs", lambda: "health=" in started.log.read_text())
        return started

    def ready(self, router: Running) -> None:
        """Wait until the router is ready, and stand in for the kubelet that sees it."""
        self.cluster.until("the router is ready", lambda: httpx.get(f"{router.health}/readyz").status_code == 200)
        patch = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        name = self.pod["metadata"]["name"]
        self.cluster.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)

    def apply(self, digest: str, name: str = "digits", **spec: Any) -> None:
        made = model(name, digest)
        made["spec"] |= spec
        made["spec"]["runtime"] = f"engine-{self.cluster.namespace}"
        self.cluster.apply(made)

    def ask(self, name: str = "digits") -> tuple[int, str]:
        """Status, and the revision that answered or the text that says why none did."""
        answer = httpx.get(f"{self.url}/{self.cluster.namespace}/{name}/v2/models/{name}", timeout=60)
        return answer.status_code, answer.headers.get("penstock-revision", answer.text)

    def start_newest(self, name: str = "digits") -> str:
        """Have the newest revision's pods run; gives its name once clients get answers of it."""

        def revisions() -> list[dict[str, Any]]:
            found = self.cluster.get("model", name)
            seen = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
            listed: list[dict[str, Any]] = found["status"]["revisions"] if seen else []
            return listed

        self.cluster.until("the operator has seen the spec", lambda: bool(revisions()))
        newest = revisions()[0]
        self.cluster.ready(f"{name}-{newest['name']}-{newest['variant']}", str(self.server.server_address[0]))
        self.cluster.until("it answers", lambda: self.ask(name) == (200, newest["name"]))
        revision: str = newest["name"]
        return revision

    def complete(self, name: str = "digits") -> None:
        self.cluster.until(
            "the rollout completes", lambda: self.cluster.condition(name, "RolloutComplete").get("status") == "True"
        )


@pytest.fixture
def routed(cluster: Cluster, start_operator: StartOperator, start_router: StartRouter) -> Iterator[Routed]:
    server = Server(own_address())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    http_port, grpc_port, metrics_port = ports.free(3)
    runtime = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"engine-{cluster.namespace}"},
        "spec": {"image": "engine:1", "formats": ["onnx"], "ports": {"http": server.server_port, "grpc": 9}},
    }
    cluster.apply(runtime)
    start_operator()
    options = ("--http-port", str(http_port), "--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port))
    pod = cluster.router_pod("router-a")
    try:
        yield Routed(cluster, server, pod, start_router, options, f"http://127.0.0.1:{http_port}")
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
        cluster.kubectl("delete", "servingruntime", f"engine-{cluster.namespace}")


def test_a_model_is_answered_by_its_pods_and_the_next_revision_by_its_own(routed: Routed) -> None:
    routed.ready(routed.router())
    routed.apply("sha256:" + "a" * 64)
    first = routed.start_newest()
    routed.complete()
    routed.apply(DIGEST_B)
    second = routed.start_newest()
    assert first != second
    routed.complete()
    routed.cluster.until(
        "the old one is gone",
        lambda: routed.cluster.names() == {
            f"Deployment/digits-{second}-default", f"Service/digits-{second}-default", "ConfigMap/digits-route"
        },
    )  # fmt: skip


def test_a_steady_state_makes_no_write_whatever_the_traffic(routed: Routed) -> None:
    router = routed.router()
    routed.ready(router)
    routed.apply(DIGEST_B)
    revision = routed.start_newest()
    routed.complete()
    before = routed.cluster.versions()
    assert f"ConfigMap/{routed.pod['metadata']['name']}" in before
    assert {routed.ask() for _ in range(100)} == {(200, revision)}
    # The next router in this pod tells the same.
    assert router.stop() == 0
    again = routed.router()
    routed.ready(again)
    assert routed.ask() == (200, revision)
    assert routed.cluster.versions() == before


def test_a_model_that_is_to_be_judged_has_its_requests_counted_in_the_report(routed: Routed) -> None:
    routed.ready(routed.router())
    routed.apply(DIGEST_B, rollout={"steps": [{"weight": 10, "for": "1m"}], "analysis": {}})
    revision = routed.start_newest()
    routed.complete()
    cluster, address = routed.cluster, f"{own_address()}:{routed.server.server_port}"
    for _ in range(7):
        answer = httpx.post(f"{routed.url}/{cluster.namespace}/digits/v2/models/digits/infer", timeout=60)
        assert answer.headers["penstock-revision"] == revision

    def told() -> RouteObserved:
        report = cluster.get("configmap", routed.pod["metadata"]["name"])
        seen = routes.reported(report, cluster.namespace, "digits")
        assert seen is not None
        return seen

    def servers() -> list[object]:
        return [of.servers for by_workload in told().counts.values() for of in by_workload.values()]

    cluster.until("they are told", lambda: servers() == [{address: (7, 0)}])
    [(source, read_s)] = told().read_s.items()
    assert source.startswith("router-a/")
    # A router that has nothing new to tell says at least that it is there.
    cluster.until("it is told again", lambda: told().read_s[source] > read_s)
    assert servers() == [{address: (7, 0)}]


def test_what_users_say_of_a_models_answers_is_in_the_report(routed: Routed) -> None:
    routed.ready(routed.router())
    routed.apply(DIGEST_B, rollout={"steps": [{"weight": 10, "for": "1m"}], "analysis": {"feedback": {}}})
    revision = routed.start_newest()
    routed.complete()
    cluster = routed.cluster
    url = f"{routed.url}/{cluster.namespace}/digits/v2/models/digits"
    for number in range(BATCH):
        given = httpx.post(f"{url}/infer", timeout=60).headers["penstock-request-id"]
        assert given.startswith(f"digits-{revision}-")
        said = httpx.post(f"{url}/feedback", json={"id": given, "correct": number > 2}, timeout=60)
        assert said.json() == {"counted": True}

    def told() -> set[tuple[int, int]]:
        report = cluster.get("configmap", routed.pod["metadata"]["name"])
        seen = routes.reported(report, cluster.namespace, "digits")
        assert seen is not None
        return {(of.judged, of.wrong) for by_workload in seen.counts.values() for of in by_workload.values()}

    cluster.until("it is told beside what HAProxy counts", lambda: told() == {(0, 0), (BATCH, 3)})


def test_what_clients_report_reaches_the_endpoints_status_and_outlives_the_router(routed: Routed) -> None:
    router = routed.router()
    routed.ready(router)
    cluster = routed.cluster
    for name, digest in (("digits", DIGEST_B), ("wide", "sha256:" + "c" * 64)):
        routed.apply(digest, name)
        routed.start_newest(name)
    arms = [{"name": "control", "model": "digits", "weight": 50}, {"name": "new", "model": "wide", "weight": 50}]
    spec = {"arms": arms, "experiment": {"metric": "clicks"}}
    metadata = {"name": "reader"}
    cluster.apply({"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": metadata, "spec": spec})
    url = f"{routed.url}/{cluster.namespace}/reader/v2/models/reader"

    def given() -> str:
        answer = httpx.post(f"{url}/infer", timeout=60)
        return str(answer.headers.get("penstock-request-id", ""))

    def counted() -> int:
        seen = cluster.get("endpoint", "reader").get("status", {}).get("experiment", {})
        return sum(arm.get("units", 0) for arm in seen.get("arms", []))

    def report(times: int) -> None:
        for _ in range(times):
            answer = httpx.post(f"{url}/reward", json={"id": given(), "value": 1}, timeout=60)
            assert answer.json() == {"counted": True}

    cluster.until("answers name their units", lambda: bool(given()))
    report(7)
    cluster.until("they are in the status", lambda: counted() == 7)
    report(2)
    # What was counted since its last report is told at the end.
    assert router.stop() == 0
    cluster.until("the last ones are, too", lambda: counted() == 9)
    again = routed.router()
    routed.ready(again)
    cluster.until("it answers again", lambda: bool(given()))
    report(3)
    cluster.until("nothing was lost or counted twice", lambda: counted() == 12)
    assert cluster.condition("reader", "Accepted", "pep")["reason"] == "Accepted"


def test_copies_of_an_endpoints_requests_are_counted_in_its_status(routed: Routed) -> None:
    routed.ready(routed.router())
    cluster = routed.cluster
    for name in ("digits", "wide"):
        routed.apply(DIGEST_B, name)
        routed.start_newest(name)
        routed.complete(name)
    arms = [{"name": "control", "model": "digits", "weight": 100}]
    spec = {"arms": arms, "shadow": [{"model": "wide", "compare": {"tolerance": 0.01}}]}
    metadata = {"name": "reader"}
    cluster.apply({"apiVersion": "penstock.dev/v1alpha1", "kind": "Endpoint", "metadata": metadata, "spec": spec})

    def mark() -> str | None:
        httpx.post(f"{routed.url}/{cluster.namespace}/reader/v2/models/reader/infer", timeout=60)
        return routed.server.mark

    cluster.until("requests are to be copied", lambda: mark() is not None)
    said = mark()
    assert said is not None
    address, _, token = said.split("|", 2)
    headers = {"penstock-mirror": token}
    for path, status in (("/v2/models/wide/infer", 200), ("/penstock/agreed", 204), ("/penstock/disagreed", 204)):
        assert httpx.post(f"http://{address}{path}", headers=headers, timeout=60).status_code == status

    def shadows() -> list[tuple[int, ...]]:
        found = cluster.get("endpoint", "reader")["status"].get("shadows", ())
        return [tuple(shadow[what] for what in ("copied", "compared", "agreed")) for shadow in found]

    cluster.until("the status has them", lambda: shadows() == [(1, 2, 1)])


def test_an_old_revision_stays_while_a_router_still_has_its_requests(routed: Routed) -> None:
    routed.ready(routed.router())
    routed.apply("sha256:" + "a" * 64)
    first = routed.start_newest()
    routed.complete()
    routed.server.held.clear()
    routed.server.go.clear()
    slow = threading.Thread(target=routed.ask)
    slow.start()
    assert routed.server.held.wait(60)
    routed.apply(DIGEST_B)
    cluster = routed.cluster
    cluster.until(
        "the next one starts", lambda: cluster.get("model", "digits")["status"]["revisions"][0]["name"] != first
    )
    newest = cluster.get("model", "digits")["status"]["revisions"][0]
    cluster.ready(f"digits-{newest['name']}-default", own_address())
    report = routed.pod["metadata"]["name"]
    told = {"arms": [[f"digits-{newest['name']}-default", newest["name"], "default", 10000]]}
    busy = told | {"busy": [f"digits-{first}-default"]}
    key = f"{cluster.namespace}.digits"
    cluster.until("the router says so", lambda: json.loads(cluster.get("configmap", report)["data"][key]) == busy)
    assert f"Deployment/digits-{first}-default" in cluster.names()
    routed.server.go.set()
    slow.join()
    cluster.until("the router is done", lambda: json.loads(cluster.get("configmap", report)["data"][key]) == told)
    cluster.until("the old one is gone", lambda: f"Deployment/digits-{first}-default" not in cluster.names())


def test_a_report_that_somebody_deleted_is_written_again(routed: Routed) -> None:
    routed.ready(routed.router())
    name = routed.pod["metadata"]["name"]
    uid = routed.cluster.get("configmap", name)["metadata"]["uid"]
    routed.cluster.kubectl("delete", "configmap", name)
    kubectl = routed.cluster.kubectl
    routed.cluster.until("it is back", lambda: f"configmap/{name}\n" in kubectl("get", "configmap", "-o", "name"))
    assert routed.cluster.get("configmap", name)["metadata"]["uid"] != uid


def test_a_route_that_cannot_be_read_leaves_the_others_alone(routed: Routed) -> None:
    router = routed.router()
    routed.ready(router)
    routed.apply(DIGEST_B)
    revision = routed.start_newest()
    stray = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "stray-route",
            "labels": {"app.kubernetes.io/managed-by": "penstock", "penstock.dev/route": "stray"},
        },
        "data": {"route.json": '{"arms": [{"workload": "x\\nshutdown sessions"}]}'},
    }
    routed.cluster.apply(stray)
    routed.cluster.until("it is said", lambda: "stray-route: arms.0.workload" in router.log.read_text())
    routed.apply("sha256:" + "a" * 64, "other")
    routed.start_newest("other")
    assert routed.ask() == (200, revision)


def test_sigterm_ends_the_router_when_what_was_under_way_is_answered(routed: Routed) -> None:
    router = routed.router()
    routed.ready(router)
    routed.apply(DIGEST_B)
    revision = routed.start_newest()
    routed.server.held.clear()
    routed.server.go.clear()
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(routed.ask()))
    slow.start()
    assert routed.server.held.wait(60)
    router.process.terminate()
    routed.cluster.until("it is not ready", lambda: httpx.get(f"{router.health}/readyz").status_code == 500)
    assert httpx.get(f"{router.health}/readyz").text == "router: it is ending\n"
    assert httpx.get(f"{router.health}/healthz").status_code == 200
    routed.server.go.set()
    assert router.process.wait(60) == 0
    slow.join()
    assert answers == [(200, revision)]


def test_https_waits_for_the_first_certificate_and_outlives_a_broken_one(
    routed: Routed, tmp_path: pathlib.Path
) -> None:
    tls, authority = tmp_path / "tls", certificates.Authority()
    certificates.swap(tls, b"", b"")
    [port] = ports.free(1)
    routed.options += ("--tls-dir", str(tls), "--https-port", str(port))
    router = routed.router()
    cluster = routed.cluster
    cluster.until("it says why", lambda: "no https" in httpx.get(f"{router.health}/readyz").text)
    authority.issue(tls)
    routed.ready(router)
    trusting = ssl.create_default_context(cadata=authority.pem.decode())

    def answers() -> int:
        return httpx.get(f"https://127.0.0.1:{port}/ns/none/v2/models/none", verify=trusting).status_code

    assert answers() == 404
    before = ssl.get_server_certificate(("127.0.0.1", port))
    certificates.swap(tls, b"broken", b"broken")
    cluster.until("it is said", lambda: "former_goes_on=True" in router.log.read_text())
    assert (answers(), httpx.get(f"{router.health}/readyz").status_code) == (404, 200)
    authority.issue(tls)
    cluster.until("the next one is used", lambda: ssl.get_server_certificate(("127.0.0.1", port)) != before)
    assert answers() == 404


async def test_without_the_api_server_it_goes_on_also_when_started_again(
    routed: Routed, tmp_path: pathlib.Path
) -> None:
    kubeconfig = tmp_path / "proxied.kubeconfig"
    async with fault_proxy.running(routed.cluster.plane.url, routed.cluster.plane.ca_file) as proxy:
        write_kubeconfig(kubeconfig, proxy.url, routed.cluster.plane.tokens["admin"])
        router = await asyncio.to_thread(routed.router, kubeconfig)
        await asyncio.to_thread(routed.ready, router)
        routed.apply(DIGEST_B)
        revision = await asyncio.to_thread(routed.start_newest)
        away = proxy.add(Rule(lambda _: True, freeze))
        for stream in list(proxy.streams):
            stream.cut()
        assert await asyncio.to_thread(routed.ask) == (200, revision)
        router.kill()
        haproxy_left_by_the_container(routed, tmp_path)
        again = await asyncio.to_thread(routed.router, kubeconfig)
        await asyncio.to_thread(
            routed.cluster.until, "it answers from its disk", lambda: answered(routed) == (200, revision)
        )
        assert httpx.get(f"{again.health}/healthz").status_code == 200
        complaints = httpx.get(f"{again.health}/readyz").text
        assert "router: HAProxy has not got the cluster's table yet" in complaints
        proxy.remove(away)
        for stream in list(proxy.streams):
            stream.cut()
        await asyncio.to_thread(routed.ready, again)
        assert await asyncio.to_thread(routed.ask) == (200, revision)


def answered(routed: Routed) -> tuple[int, str] | None:
    with contextlib.suppress(httpx.TransportError):
        return routed.ask()
    return None


def haproxy_left_by_the_container(routed: Routed, tmp_path: pathlib.Path) -> None:
    """In a container HAProxy ends with the router that was killed."""
    record = tmp_path / routed.pod["metadata"]["name"] / "haproxy.json"
    master = psutil.Process(json.loads(record.read_text())["pid"])
    processes = [master, *master.children()]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
