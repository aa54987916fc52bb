"""What is known of a build at each point of its Job's life."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operators.actuators.kubernetes import build_results
from operators.actuators.kubernetes.build_jobs import BUILD_LABEL
from operators.actuators.kubernetes.build_results import REFUSAL, SUMMARY
from operators.api.plan import BuildObserved, BuildState
from serving.contract import Exit

DIGEST = "sha256:" + "b" * 64
INT8 = {"name": "int8", "accepted": True, "reason": "3.0 times less CPU time", "digest": DIGEST, "stored": "model.onnx",
        "gain": 3.0}  # fmt: skip
FP32 = {"name": "fp32", "accepted": True, "reason": "the source itself", "digest": "sha256:" + "a" * 64, "gain": 1.0}
SPARSE = {"name": "sparse", "accepted": False, "reason": "no faster"}
DONE = json.dumps({"store": "s3://m/store", "build": "0123", "selected": "int8", "variants": [FP32, INT8, SPARSE]})


def job(*conditions: tuple[str, str], **annotations: str) -> dict[str, Any]:
    found = [{"type": kind, "status": "True", "reason": reason, "message": "m"} for kind, reason in conditions]
    metadata = {"name": "digits-build-1", "namespace": "team", "uid": "1", "annotations": annotations}
    return {"metadata": metadata, "spec": {"activeDeadlineSeconds": 60}, "status": {"conditions": found}}


def pod(state: dict[str, Any], last: dict[str, Any] | None = None, phase: str = "Running") -> dict[str, Any]:
    container = {"name": "build", "state": state, "lastState": last or {}, "ready": "running" in state}
    metadata = {"name": "digits-build-1-x", "namespace": "team", "labels": {BUILD_LABEL: "1"}}
    spec = {"containers": [{"name": "build", "image": "penstock-builder:1"}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, "containerStatuses": [container]}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


RUNNING: dict[str, Any] = {"running": {}}
WAITING: dict[str, Any] = {"waiting": {"reason": "CrashLoopBackOff"}}


def test_a_builders_last_words_are_its_report() -> None:
    done = pod(ended(0, DONE, "Completed"), phase="Succeeded")
    assert build_results.outcome(job(), [done]) == {SUMMARY: DONE}
    seen = build_results.observed(job(), [done], "")
    assert seen.state is BuildState.DONE
    assert seen.report is not None
    assert [(one.name, one.uri) for one in seen.report.variants] == [
        ("fp32", ""),
        ("int8", f"s3://m/store/sha256-{'b' * 64}/model.onnx"),
        ("sparse", ""),
    ]
    assert build_results.told(seen.report) == (
        "variant int8 is selected, 3.0x; 1 of 3 may not serve; all of it: s3://m/store/builds/0123/report.html"
    )


def test_what_is_kept_on_the_job_outlives_its_pods() -> None:
    kept = job(("Complete", ""), **{SUMMARY: DONE})
    assert build_results.observed(kept, [], "").state is BuildState.DONE
    assert not build_results.given_up(kept, [])
    refused = job(**{REFUSAL: "no"})
    assert build_results.observed(refused, [], "") == BuildObserved(BuildState.REFUSED, "no")


@pytest.mark.parametrize("code", [Exit.REFUSED, Exit.USAGE, Exit.FAILED])
def test_a_refusal_is_final_also_while_kubernetes_tries_again(code: Exit) -> None:
    for again in (WAITING, RUNNING):
        tried = pod(again, ended(code, "a log\nerror: the source cannot be used: NaN"))
        seen = build_results.observed(job(), [tried], "")
        assert seen == BuildObserved(BuildState.REFUSED, "the source cannot be used: NaN")


def test_a_builder_that_was_killed_is_a_matter_of_memory_not_of_the_model() -> None:
    killed = pod(WAITING, ended(137, reason="OOMKilled"))
    seen = build_results.observed(job(), [killed], "")
    assert (seen.state, build_results.outcome(job(), [killed])) == (BuildState.UNAVAILABLE, {})
    assert "set builder.resources.requests.memory of Penstock's chart" in seen.message
    even = pod(WAITING, ended(1, reason="OOMKilled"))
    assert build_results.outcome(job(), [even]) == {}


def test_a_builder_without_keys_is_told_where_to_put_them() -> None:
    tried = pod(WAITING, ended(Exit.UNAVAILABLE, "error: NoCredentialsError: Unable to locate credentials"))
    seen = build_results.observed(job(), [tried], "")
    assert seen.state is BuildState.UNAVAILABLE
    assert "Secret penstock-storage of namespace team" in seen.message


def test_one_that_works_again_after_it_was_killed_is_running() -> None:
    again = pod(RUNNING, ended(137))
    assert build_results.observed(job(), [again], "int8: quantize (40%)") == BuildObserved(
        BuildState.RUNNING, "int8: quantize (40%)"
    )
    assert build_results.observed(job(), [again], "").message == "begun"


def test_before_there_is_a_pod_it_is_said_where_to_look() -> None:
    assert build_results.observed(job(), [], "") == BuildObserved(
        BuildState.RUNNING, "its pod is not there yet; `kubectl -n team describe job digits-build-1` says why"
    )


def test_one_that_took_too_long_is_not_tried_again() -> None:
    late = job(("Failed", "DeadlineExceeded"))
    seen = build_results.observed(late, [], "")
    assert seen.state is BuildState.REFUSED
    assert seen.message.startswith("it was not done after 60 s; ask for less")


@pytest.mark.parametrize(
    ("condition", "why"),
    [(("Failed", "BackoffLimitExceeded"), "m"), (("Complete", ""), "its result went with its pod")],
)
def test_one_that_came_to_nothing_is_begun_anew(condition: tuple[str, str], why: str) -> None:
    over = job(condition)
    assert build_results.given_up(over, [])
    assert build_results.observed(over, [], "") == BuildObserved(
        BuildState.UNAVAILABLE, f"{why}; it is begun anew within 10 minutes"
    )


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[]",
        '{"store": "s3://m"}',
        DONE.replace('"selected"', '"chosen"'),
        "null",
        DONE.replace("model.onnx", "../x"),
    ],
)
def test_words_that_are_no_report_are_refused_with_the_next_step(said: str) -> None:
    seen = build_results.observed(job(**{SUMMARY: said}), [], "")
    assert seen.state is BuildState.REFUSED
    assert "`kubectl -n team delete job digits-build-1`" in seen.message
