"""What a client could do harm with is closed; each of these is tried.

Where each came from: Triton's advisories of 2025 (CVE-2025-23319, -23320, -23334) began at registered shared memory;
calls that load models have fetched for strangers (CVE-2023-43654), and settings of logs have written files.
"""

from __future__ import annotations

import base64
from typing import Any

import grpc as grpcio
import httpx

from serving.conformance.checks import check, not_asked, require
from serving.conformance.target import Target

_REGION = {"key": "/conformance", "offset": 0, "byte_size": 64}
_CLOSED = frozenset({401, 403, 404, 405, 501})


@check("lets no client register shared memory")
def shared_memory(target: Target) -> None:
    for kind, body in (
        ("system", _REGION),
        ("cuda", {"raw_handle": {"b64": base64.b64encode(b"x" * 64).decode()}, "device_id": 0, "byte_size": 64}),
    ):
        _is_closed(target.http.post(f"{target.base}/v2/{kind}sharedmemory/region/conformance/register", json=body))
    if target.takes_json:
        document = target.document(target.sample())
        document["inputs"][0]["parameters"] = {"shared_memory_region": "conformance", "shared_memory_byte_size": 64}
        del document["inputs"][0]["data"]
        require(target.post(document).status_code >= 400, "it took an input from shared memory")


@check("lets no client change what is logged and traced")
def settings(target: Target) -> None:
    _is_closed(target.http.post(f"{target.base}/v2/logging", json={"log_verbose_level": 9}))
    _is_closed(target.http.post(target.path("/trace/setting"), json={"trace_level": ["TENSORS"]}))


@check("lets no client load a model from elsewhere")
def repository(target: Target) -> None:
    body = {"parameters": {"config": "{}", "file:1/model.onnx": base64.b64encode(b"no model").decode()}}
    answer = target.http.post(f"{target.base}/v2/repository/models/conformance-none/load", json=body)
    require(answer.status_code in _CLOSED or "declaration" in answer.text, f"it answered {answer.status_code}")


@check("lets no client do any of it over gRPC")
def by_grpc(target: Target) -> None:
    if target.channel is None:
        not_asked("no address of gRPC was given")
    stubs = ("SystemSharedMemoryRegister", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings")
    for method in stubs:
        call: Any = target.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        try:
            call(b"", timeout=target.timeout_s)
        except grpcio.RpcError as error:
            closed = (
                grpcio.StatusCode.UNIMPLEMENTED,
                grpcio.StatusCode.UNAVAILABLE,
                grpcio.StatusCode.PERMISSION_DENIED,
            )
            require(error.code() in closed, f"{method} was answered with {error.code().name}: {error.details()}")
        else:
            require(False, f"{method} was answered")


def _is_closed(answer: httpx.Response) -> None:
    where = answer.request.url.path
    require(answer.status_code in _CLOSED, f"{where} answered {answer.status_code}: {answer.text[:120]}")
