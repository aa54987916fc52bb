"""The router's replicas on a real node: what each reports, and what becomes of a report."""

from __future__ import annotations

import json
import pathlib

from tests.cluster.digits import Digits
from tests.rig.cluster import Cluster
from tests.rig.installation import NAMESPACE, Installation
from tests.rig.s3 import Server

ROUTER = "deployment/penstock-router"


def routers(cluster: Cluster) -> set[str]:
    selector = "--selector=app.kubernetes.io/component=router"
    named = cluster.kubectl("--namespace", NAMESPACE, "get", "pods", selector, "-o", "name").split()
    return {name.removeprefix("pod/") for name in named}


def reports(cluster: Cluster) -> dict[str, dict[str, str]]:
    selector = "--selector=penstock.dev/router-report"
    found = json.loads(cluster.kubectl("--namespace", NAMESPACE, "get", "configmaps", selector, "-o", "json"))["items"]
    return {item["metadata"]["name"]: item.get("data") or {} for item in found}


def test_each_router_reports_and_its_report_goes_with_it(
    cluster: Cluster, penstock: Installation, namespace: str, buckets: Server, tmp_path: pathlib.Path
) -> None:
    digits = Digits(cluster, namespace, buckets, tmp_path, {})
    digits.apply("first")
    revision = digits.serving()
    told = json.dumps({"arms": [[f"digits-{revision}-fp32", revision, "fp32", 10_000]]}, separators=(",", ":"))
    before = routers(cluster)
    cluster.until(
        "each router says what it does",
        lambda: [r.get(f"{namespace}.digits") for r in reports(cluster).values()] == [told] * 2,
    )
    assert reports(cluster).keys() == before
    cluster.kubectl("--namespace", NAMESPACE, "rollout", "restart", ROUTER)
    cluster.kubectl("--namespace", NAMESPACE, "rollout", "status", ROUTER, "--timeout=180s")
    cluster.until("the old routers have gone", lambda: not before & routers(cluster))
    cluster.until("their reports have gone with them", lambda: reports(cluster).keys() == routers(cluster))
    assert [report[f"{namespace}.digits"] for report in reports(cluster).values()] == [told] * 2
    digits.penstock("delete", "model", "digits")
    cluster.until("nobody reports on what is gone", lambda: not any(reports(cluster).values()))
