"""What ``serving/grpc/core.py`` uses of grpcio's private core binding, as ``grpc._server`` does."""

from __future__ import annotations

import inspect
from pathlib import Path

import grpc._server
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (cygrpc.CompletionQueue, ("poll", "shutdown")),
        (
            cygrpc.Server,
            ("register_completion_queue", "add_http2_port", "start", "request_call", "shutdown", "cancel_all_calls"),
        ),
        (cygrpc.Server, ("destroy",)),
        (cygrpc.Call, ("start_server_batch",)),
        (cygrpc.RequestCallEvent, ("success", "tag", "call", "call_details", "invocation_metadata")),
        (cygrpc.BatchOperationEvent, ("success", "tag", "batch_operations", "completion_type")),
        (cygrpc.ReceiveMessageOperation, ("message",)),
        (cygrpc.ReceiveCloseOnServerOperation, ("cancelled",)),
        (cygrpc.CompletionType, ("queue_shutdown",)),
    ],
)
def test_the_core_has_what_is_used_of_it(owner: type, names: tuple[str, ...]) -> None:
    assert [name for name in names if not hasattr(owner, name)] == []


def test_operations_take_what_they_are_given() -> None:
    cygrpc.SendInitialMetadataOperation((("name", "value"),), 0)
    cygrpc.SendMessageOperation(b"message", 0)
    cygrpc.SendStatusFromServerOperation((), 0, b"details", 0)


def test_grpcio_itself_still_serves_by_the_same_calls() -> None:
    source = inspect.getsource(grpc._server)
    for used in ("completion_queue.poll(", "server.request_call(", "call.start_server_batch(", ".cancel_all_calls()"):
        assert used in source, used


def test_what_the_server_switches_off_is_still_an_experiment_of_the_core() -> None:
    assert b"\0event_engine_listener\0" in Path(cygrpc.__file__).read_bytes()
