"""Whole pages as people see them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from operators.cli import show

NOW = datetime.datetime(2026, 1, 2, 3, 14, 5, tzinfo=datetime.UTC)
DIGEST = "sha256:" + "0123456789abcdef" * 4


def condition(type_: str, status: str, reason: str, message: str) -> dict[str, Any]:
    since = "2026-01-02T03:04:35Z"
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }


def revision(name: str, state: str, weight: int, message: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "variant": "fp32",
        "recipe": {"uri": "file:///m.onnx", "digest": DIGEST},
        "state": state,
        "weight": weight,
        "readyReplicas": weight // 5000,
        "since": "2026-01-02T03:13:05Z",
        "message": message,
    }


def model(name: str = "digits", namespace: str = "default", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Model",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generation": 2,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"team": "a", "stage": "test"},
        },
        "spec": {
            "source": {"uri": "file:///m.onnx", "digest": DIGEST},
            "replicas": 2,
            "runtime": "onnxruntime",
        },
        "status": status,
    }


SERVING = model(
    observedGeneration=2,
    conditions=[
        condition("Ready", "True", "Serving", "revision 1a2b3c4d (fp32) serves"),
        condition("RolloutComplete", "False", "RevisionFailed", "model digits: revision 5e6f7a8b does not start"),
    ],
    url="http://127.0.0.1:8080/default/digits",
    revision="1a2b3c4d",
    variant="fp32",
    readyReplicas=2,
    variants=[{"name": "fp32", "state": "Selected", "digest": DIGEST, "reason": "first that can be served"}],
    revisions=[
        revision("5e6f7a8b", "Failed", 0, "model.onnx: truncated") | {"restarts": 3},
        revision("1a2b3c4d", "Serving", 10_000),
    ],
)


def test_models_are_a_line_each() -> None:
    assert show.table(show.rows("Model", [SERVING, model("new")], NOW, wide=False)) == (
        "NAME     READY     VARIANT   REVISION   REPLICAS   URL                                    AGE\n"
        "digits   True      fp32      1a2b3c4d   2/2        http://127.0.0.1:8080/default/digits   10m\n"
        "new      Unknown   -         -          0/2        -                                      10m\n"
    )


def test_wide_adds_digest_and_message() -> None:
    assert show.table(show.rows("Model", [SERVING], NOW, wide=True)) == (
        "NAME     READY   VARIANT   REVISION   REPLICAS   URL                                    AGE"
        "   DIGEST         MESSAGE\n"
        "digits   True    fp32      1a2b3c4d   2/2        http://127.0.0.1:8080/default/digits   10m"
        "   0123456789ab   revision 1a2b3c4d (fp32) serves\n"
    )


def test_namespaces_are_shown_when_there_are_several() -> None:
    objects = [model("a", "left"), model("b", "right")]
    assert show.table(show.rows("Model", objects, NOW, wide=False)) == (
        "NAMESPACE   NAME   READY     VARIANT   REVISION   REPLICAS   URL   AGE\n"
        "left        a      Unknown   -         -          0/2        -     10m\n"
        "right       b      Unknown   -         -          0/2        -     10m\n"
    )


ENDPOINT: dict[str, Any] = {
    "kind": "Endpoint",
    "metadata": {"name": "reader", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"},
    "spec": {
        "arms": [
            {"name": "control", "model": "digits", "weight": 90},
            {"name": "challenger", "model": "wide", "weight": 10},
        ],
        "assignment": {"header": "x-user-id"},
    },
    "status": {
        "conditions": [condition("Ready", "True", "Serving", "every arm has a serving model")],
        "url": "http://127.0.0.1:8080/default/reader",
    },
}
RUNTIME: dict[str, Any] = {
    "kind": "ServingRuntime",
    "metadata": {"name": "triton", "creationTimestamp": "2026-01-02T03:14:00Z"},
    "spec": {"image": "triton:1", "formats": ["onnx", "plan"], "protocols": ["v2", "grpc-v2"]},
}


def test_endpoints_and_runtimes_are_a_line_each() -> None:
    assert show.table(show.rows("Endpoint", [ENDPOINT], NOW, wide=True)) == (
        "NAME     READY   ARMS                       URL                                    AGE   MESSAGE\n"
        "reader   True    control=90,challenger=10   http://127.0.0.1:8080/default/reader   10m"
        "   every arm has a serving model\n"
    )
    assert show.table(show.rows("ServingRuntime", [RUNTIME], NOW, wide=True)) == (
        "NAME     FORMATS     PROTOCOLS    LOCAL   AGE   IMAGE\n"
        "triton   onnx,plan   v2,grpc-v2   no      5s    triton:1\n"
    )


def test_a_model_is_described_with_every_reason() -> None:
    assert (
        show.describe(SERVING, NOW)
        == f"""\
Name:         digits
Namespace:    default
Kind:         Model
Labels:       stage=test, team=a
Created:      2026-01-02T03:04:05Z (10m ago)
Generation:   2 (status speaks of 2)
URL:          http://127.0.0.1:8080/default/digits
Source:       file:///m.onnx
Digest:       {DIGEST}
Runtime:      onnxruntime
Conditions:
  TYPE              STATUS   SINCE   REASON           MESSAGE
  Ready             True     9m      Serving          revision 1a2b3c4d (fp32) serves
  RolloutComplete   False    9m      RevisionFailed   model digits: revision 5e6f7a8b does not start
Variants:
  NAME   STATE      DIGEST         WHY
  fp32   Selected   0123456789ab   first that can be served
Revisions:
  NAME       VARIANT   STATE     WEIGHT   READY   RESTARTS   SINCE   DIGEST         MESSAGE
  5e6f7a8b   fp32      Failed    0 %      0       3          60s     0123456789ab   model.onnx: truncated
  1a2b3c4d   fp32      Serving   100 %    2       -          60s     0123456789ab   -
"""
    )


def test_an_endpoint_is_described_with_its_arms() -> None:
    assert (
        show.describe(ENDPOINT, NOW)
        == """\
Name:         reader
Namespace:    default
Kind:         Endpoint
Created:      2026-01-02T03:04:05Z (10m ago)
URL:          http://127.0.0.1:8080/default/reader
Assignment:   by header x-user-id
Arms:
  NAME         MODEL    WEIGHT
  control      digits   90 %
  challenger   wide     10 %
Conditions:
  TYPE    STATUS   SINCE   REASON    MESSAGE
  Ready   True     9m      Serving   every arm has a serving model
"""
    )


@pytest.mark.parametrize(
    ("since", "shown"),
    [
        ("2026-01-02T03:14:05Z", "0s"),
        ("2026-01-02T03:12:06Z", "119s"),
        ("2026-01-02T03:12:05Z", "2m"),
        ("2026-01-02T01:14:05Z", "2h"),
        ("2025-12-31T03:14:05Z", "2d"),
        ("2026-01-02T03:14:09Z", "0s"),
        (None, ""),
    ],
)
def test_ages_have_the_unit_that_matters(since: str | None, shown: str) -> None:
    assert show.age(since, NOW) == shown


def test_a_shadow_is_described_with_its_share_how_often_it_agreed_and_where_the_differences_are() -> None:
    endpoint = {
        "kind": "Endpoint",
        "metadata": {"name": "reader", "namespace": "default", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {
            "arms": [{"name": "a", "model": "digits", "weight": 90}, {"name": "b", "model": "wide", "weight": 10}],
            "shadow": [{"model": "next", "percent": 10}, {"model": "new"}],
        },
        "status": {
            "shadows": [{"model": "next", "copied": 1_210, "compared": 1_200, "agreed": 1_194}, {"model": "new"}]
        },
    }
    told = show.describe(endpoint, NOW)
    assert told.partition("Shadows:\n")[2] == (
        "  MODEL   PERCENT   COPIED   COMPARED   AGREED           MESSAGE\n"
        "  next    10 %      1,210    1,200      1,194 (99.5 %)   -\n"
        "  new     100 %     0        0          0                -\n"
        "Differences:\n"
        "  The last ones stand at /debug/shadow of the server that answered, with the id of the request:\n"
        "  `difference` says what differs between `ours`, which the client got, and `theirs`, the shadow's.\n"
        "  The server's port: `penstock logs MODEL` (digits or wide); in a cluster `kubectl port-forward` to its pod.\n"
    )
    endpoint["status"] = {"shadows": [{"model": "next", "copied": 1, "compared": 1, "agreed": 1}]}
    assert "Differences" not in show.describe(endpoint, NOW)
