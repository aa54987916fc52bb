"""gRPC as clients speak it: the same on the model server's own port and through the router."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import grpc as grpcio
import pytest

from serving.protocols import grpc
from tests.conformance import ways
from tests.conformance.ways import MAX_PENDING, MAX_REQUEST_BYTES, Way, endless, request
from tests.rig import model_server, raw_http2


def unknown(name: str) -> str:
    """What is said of a model that there is not, by either way."""
    return f"Request for unknown model: '{name}' is not served here; GET /v2/models lists what is served: echo, slow"


IDENTITY = {"penstock-revision": "r1", "penstock-variant": "fp32"}
MAX_MESSAGE_BYTES = MAX_REQUEST_BYTES - 5
GZIP, DEFLATE = grpcio.Compression.Gzip, grpcio.Compression.Deflate


def identity(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name in IDENTITY}


# Answers and errors


def test_an_inference_is_answered_with_revision_and_variant_in_the_initial_metadata(way: Way) -> None:
    found = way.call(request(id="7"))
    assert (found.status, found.answer) == (("OK", ""), ways.answer(id="7"))
    assert (identity(found.initial), identity(found.trailing)) == (IDENTITY, {})


def test_every_other_method_answers(way: Way) -> None:
    fields = {"ModelReady": {"name": "echo"}, "ModelMetadata": {"name": "echo"}, "ModelConfig": {"name": "echo"}}
    for method in ("ServerLive", "ServerReady", "ServerMetadata", *fields, "RepositoryIndex"):
        kind, _ = grpc.METHODS[method]
        assert way.call(kind(**fields.get(method, {})), method).status == ("OK", ""), method


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (request("q"), "NOT_FOUND", unknown("q")),
        (request(model_version="9"), "NOT_FOUND", "Request for unknown model: 'echo' has no version '9'; it has 1"),
        (b"", "NOT_FOUND", unknown("")),
        (b"\xff\xff", "INVALID_ARGUMENT", "the request is no inference.ModelInferRequest message: "
         "Error parsing message with type 'inference.ModelInferRequest'"),
        (grpc.InferRequest(model_name="echo"), "INVALID_ARGUMENT",
         "the request has no inputs, expected at least one tensor"),
        (grpc.InferRequest(model_name="echo", inputs=[{"name": "ä %\n", "datatype": "FP9", "shape": [1]}],
                           raw_input_contents=[b""]), "INVALID_ARGUMENT",
         "tensor 'ä %\n' has datatype 'FP9', expected one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, "
         "INT64, FP16, BF16, FP32, FP64, BYTES"),
        (grpc.InferRequest(model_name="echo", inputs=[{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {
            "shared_memory_region": {"string_param": "r"}}}]), "UNIMPLEMENTED",
         "input 'x' names shared memory, which this server does not have"),
    ],
    ids=["model", "version", "nothing", "no protobuf", "no inputs", "percent-encoded", "not supported"],
)  # fmt: skip
def test_an_error_has_its_code_and_its_sentence(way: Way, message: Any, code: str, details: str) -> None:
    assert way.call(message).status == (code, details)


def test_an_error_of_a_model_says_its_revision_and_variant(way: Way) -> None:
    found = way.call(grpc.InferRequest(model_name="echo"))
    assert identity(found.initial | found.trailing) == IDENTITY


@pytest.mark.parametrize(
    ("method", "details"),
    [
        ("Nope", "the method 'Nope' is not known here"),
        ("/other.Service/Call", "the method '/other.Service/Call' is not known here"),
    ],
)
def test_a_method_or_service_that_does_not_exist_is_unimplemented(way: Way, method: str, details: str) -> None:
    assert way.call(request(), method).status == ("UNIMPLEMENTED", details)


def test_a_queue_that_is_full_refuses_at_once(way: Way) -> None:
    running = [way.method("ModelInfer").future(endless()) for _ in range(MAX_PENDING)]
    way.until_pending(MAX_PENDING)
    found = way.call(endless())
    for call in running:
        call.cancel()
    assert found.status == (
        "UNAVAILABLE",
        f"model 'slow' has {MAX_PENDING} requests waiting, its limit; send again later, or raise limits.maxPending",
    )


# Metadata


def test_metadata_that_nobody_knows_changes_nothing(way: Way) -> None:
    metadata = (("x-unknown", "with spaces, and: signs"), ("x-twice", "1"), ("x-twice", "2"), ("y-bin", b"\0\1\xff"))
    assert way.call(request(), metadata=metadata).answer == ways.answer()


def test_metadata_of_sixteen_kilobytes_is_taken(way: Way) -> None:
    assert way.call(request(), metadata=(("x-large", "a" * 15_000),)).answer == ways.answer()


# Time limits and cancellation


def test_a_deadline_inside_the_engine_stops_it(way: Way) -> None:
    assert way.call(endless(), timeout=0.3).code == "DEADLINE_EXCEEDED"
    way.until_pending(0)


def test_a_deadline_in_the_queue_keeps_the_request_from_the_engine(way: Way) -> None:
    first = way.method("ModelInfer").future(endless())
    way.until_pending(1)
    executed = way.executed("slow")
    assert way.call(endless(), timeout=0.3).code == "DEADLINE_EXCEEDED"
    first.cancel()
    way.until_pending(0)
    assert way.executed("slow") <= executed + 1


def test_an_abandoned_call_stops_computing_and_is_counted_as_cancelled(way: Way) -> None:
    before = way.cancelled()
    call = way.method("ModelInfer").future(endless())
    way.until_pending(1)
    call.cancel()
    assert call.code() is grpcio.StatusCode.CANCELLED
    way.until_pending(0)
    model_server.until(lambda: way.cancelled() == before + 1, "the call is counted as cancelled")


def test_an_abandoned_call_stops_waiting(way: Way) -> None:
    before, executed = way.cancelled(), way.executed("slow")
    running, waiting = (way.method("ModelInfer").future(endless()) for _ in range(2))
    way.until_pending(2)
    waiting.cancel()
    running.cancel()
    way.until_pending(0)
    model_server.until(lambda: way.cancelled() == before + 2, "both are counted as cancelled")
    assert way.executed("slow") <= executed + 1


# Size and number


def test_a_message_of_megabytes_goes_both_ways(way: Way) -> None:
    size = 2**20 + 5
    assert way.call(request(size=size)).answer == ways.answer(size)


def test_the_largest_message_goes_and_one_byte_more_is_refused(way: Way) -> None:
    assert way.call(ways.filling(MAX_MESSAGE_BYTES)).code == "OK"
    found = way.call(ways.filling(MAX_MESSAGE_BYTES + 1))
    assert found.code == "RESOURCE_EXHAUSTED"
    assert str(MAX_REQUEST_BYTES if way.routed else MAX_MESSAGE_BYTES) in found.details


def test_many_calls_at_once_on_one_connection_get_their_own_answers(way: Way) -> None:
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda i: way.call(request(size=1 + i % 7, id=str(i))), range(500)))
    assert [outcome.answer for outcome in found] == [ways.answer(1 + i % 7, id=str(i)) for i in range(500)]


# Compression


@pytest.mark.parametrize("compression", [GZIP, DEFLATE])
@pytest.mark.parametrize("size", [2, 200, 100_000])
@pytest.mark.parametrize("metadata", [(), (("penstock-model", "default/echo"),)])
def test_a_compressed_request_is_read(
    way: Way, compression: grpcio.Compression, size: int, metadata: ways.Metadata
) -> None:
    assert way.call(request(size=size), compression=compression, metadata=metadata).answer == ways.answer(size)


def test_a_stream_of_compressed_requests_is_read(way: Way) -> None:
    call = way.stream(iter([request(size=1_000, id=str(number)) for number in range(3)]), compression=GZIP)
    assert ids(call) == [("0", ""), ("1", ""), ("2", "")]


def test_a_compressed_request_for_an_unknown_model_says_so(way: Way) -> None:
    found = way.call(request("q", size=1_000), compression=GZIP)
    assert found.status == ("NOT_FOUND", unknown("q"))


# Endpoints


def alias(way: Way) -> ways.Metadata:
    """What the router says by itself."""
    return () if way.routed else (("penstock-alias", "one/echo"),)


def test_a_call_to_an_endpoint_is_answered_by_its_model(way: Way) -> None:
    found = way.call(request("one", id="7"), metadata=alias(way))
    assert (found.status, found.answer) == (("OK", ""), ways.answer(id="7"))
    for method in ("ModelReady", "ModelMetadata", "ModelConfig"):
        kind, _ = grpc.METHODS[method]
        metadata = (("penstock-model", "default/one"), *alias(way))
        assert way.call(kind(name="one"), method, metadata=metadata).status == ("OK", ""), method


def test_a_stream_to_an_endpoint_is_answered_by_its_model(way: Way) -> None:
    messages = [request("one", id="0"), request("echo", id="1"), request("two", id="2")]
    assert ids(way.stream(iter(messages), metadata=alias(way))) == [
        ("0", ""),
        ("1", ""),
        ("2", unknown("two")),
    ]


def test_a_compressed_request_that_would_unpack_beyond_the_limit_is_refused(way: Way) -> None:
    named = (("penstock-model", "default/echo"),)
    found = way.call(request(size=MAX_REQUEST_BYTES), compression=GZIP, metadata=named)
    assert found.code == "RESOURCE_EXHAUSTED"


# Streams


def ids(call: Any) -> list[tuple[str, str]]:
    return [(answer.infer_response.id, answer.error_message) for answer in call]


def test_a_stream_answers_in_order_and_outlives_wrong_requests(way: Way) -> None:
    messages = [request(id="0"), request("q", id="1"), request(id="2"), b"\xff\xff", request(id="4")]
    assert ids(way.stream(iter(messages), metadata=(("penstock-model", "default/echo"),))) == [
        ("0", ""),
        ("1", unknown("q")),
        ("2", ""),
        ("", "the request is no inference.ModelInferRequest message: "
         "Error parsing message with type 'inference.ModelInferRequest'"),
        ("4", ""),
    ]  # fmt: skip


def test_a_stream_says_revision_and_variant_before_its_first_answer(way: Way) -> None:
    call = way.stream(iter([request()]))
    assert identity(dict(call.initial_metadata())) == IDENTITY
    assert len(ids(call)) == 1


def test_a_stream_goes_on_in_both_directions_for_as_long_as_both_like(way: Way) -> None:
    turn = threading.Semaphore(1)

    def messages() -> Iterator[Any]:
        for number in range(20):
            assert turn.acquire(timeout=30)
            yield request(id=str(number))

    found = []
    for answer in way.stream(messages()):
        found.append(answer.infer_response.id)
        turn.release()
    assert found == [str(number) for number in range(20)]


def test_a_stream_without_a_message_ends_well(way: Way) -> None:
    call = way.stream(iter(()), metadata=(("penstock-model", "default/echo"),))
    assert ids(call) == []
    assert call.code() is grpcio.StatusCode.OK


def test_a_stream_that_is_cancelled_leaves_the_queue(way: Way) -> None:
    before = way.cancelled()
    call = way.stream(iter([endless()]))
    way.until_pending(1)
    call.cancel()
    way.until_pending(0)
    model_server.until(lambda: way.cancelled() == before + 1, "the call is counted as cancelled")


def test_a_deadline_of_a_stream_ends_it_wherever_it_is(way: Way) -> None:
    call = way.stream(iter([request(id="0"), endless()]), timeout=0.5)
    found = []
    with pytest.raises(grpcio.RpcError):
        found += [answer.infer_response.id for answer in call]
    assert call.code() is grpcio.StatusCode.DEADLINE_EXCEEDED
    way.until_pending(0)


def another_client(way: Way) -> str:
    with raw_http2.connected(way.authority) as client:
        stream = client.open(raw_http2.call("ModelStreamInfer"))
        client.send(stream, raw_http2.framed(request().SerializeToString()), end=True)
        return client.answer(stream).status[0]


def test_a_stream_whose_client_does_not_read_is_not_read_either_and_holds_up_nobody_else(way: Way) -> None:
    sent = 0
    go_on = threading.Event()

    def messages() -> Iterator[Any]:
        nonlocal sent
        while not go_on.is_set() and sent < 2_000:
            sent += 1
            yield request(size=100_000)

    with contextlib.closing(grpcio.insecure_channel(way.authority)) as channel:
        call = dataclasses.replace(way, opened=channel).stream(messages())
        seen = [-1]

        def stopped() -> bool:
            seen.append(sent)
            return len(seen) > 50 and len(set(seen[-50:])) == 1

        model_server.until(stopped, "the client is held back")
        assert [another_client(way) for _ in range(30)] == ["0"] * 30
        go_on.set()
        assert sent < 2_000
        # HAProxy 2.8 reads no further, not even that windows have opened, while a stream's buffer is full.
        assert way.routed or len(ids(call)) == sent
    assert way.call(request()).code == "OK"
