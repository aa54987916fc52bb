"""Metrics, by the names that scalers and dashboards read: Triton's."""

from __future__ import annotations

import re

from serving import contract
from serving.conformance.checks import check, require
from serving.conformance.target import Target


@check("counts requests in nv_inference_request_success{model}")
def success(target: Target) -> None:
    before = _value(target, contract.METRIC_SUCCESS)
    for seed in range(3):
        target.infer(target.sample(seed))
    grown = _value(target, contract.METRIC_SUCCESS) - before
    require(grown == 3, f"it grew by {grown:g} with 3 requests")


@check("counts rows and calls of the model in nv_inference_count, nv_inference_exec_count")
def counts(target: Target) -> None:
    for name in (contract.METRIC_COUNT, contract.METRIC_EXEC_COUNT):
        require(_value(target, name) > 0, f"{name} is 0")


@check("adds up durations: request, queue, compute")
def durations(target: Target) -> None:
    for name in (
        contract.METRIC_REQUEST_DURATION_US,
        contract.METRIC_QUEUE_DURATION_US,
        contract.METRIC_COMPUTE_INFER_DURATION_US,
    ):
        _value(target, name)


@check("tells how many requests wait (nv_inference_pending_request_count)")
def pending(target: Target) -> None:
    _value(target, contract.METRIC_PENDING)


def _value(target: Target, name: str) -> float:
    """The metric of the model, its versions and reasons added up."""
    answer = target.http.get(target.metrics_url)
    require(answer.status_code == 200, f"{target.metrics_url} answered {answer.status_code}")
    line = re.compile(rf'^{name}{{[^}}]*model="{re.escape(target.model)}"[^}}]*}} (\S+)', re.MULTILINE)
    found = line.findall(answer.text)
    require(found, f"{target.metrics_url} has no {name} of the model")
    return sum(map(float, found))
