"""Calls of Triton's protocol that would reach memory, files, other models or a log, tried by its own clients."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

CLOSED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("register_system_shared_memory", ("region", "/penstock", 64)),
    ("register_cuda_shared_memory", ("region", b"eA==", 0, 8)),
    ("get_system_shared_memory_status", ()),
    ("get_model_repository_index", ()),
    ("update_trace_settings", ("digits", {"trace_level": ["TENSORS"]})),
    ("update_log_settings", ({"log_verbose_level": 9},)),
)


def refusals(http_url: str, grpc_url: str, metadata: Mapping[str, str] | None = None) -> list[str]:
    """What each is told, up to the first comma, in order; ``metadata`` goes along with those over gRPC."""
    told = []
    with (
        triton_http.InferenceServerClient(http_url) as http,
        triton_grpc.InferenceServerClient(grpc_url) as grpc,
    ):
        region = triton_http.InferInput("image", [1, 1, 32, 32], "FP32")
        region.set_shared_memory("penstock", 4096)
        for client, call, arguments in (
            *itertools.product((http, grpc), ("load_model", "unload_model"), (("other",), ("digits",))),
            *((client, *one) for client in (http, grpc) for one in CLOSED),
            (http, "infer", ("digits", [region])),
        ):
            try:
                getattr(client, call)(*arguments, headers=metadata if client is grpc else None)
                told.append(f"{call} was answered")
            except InferenceServerException as refused:
                told.append(str(refused.message()).partition(",")[0])
    return told
