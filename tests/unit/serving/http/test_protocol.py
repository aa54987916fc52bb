"""Connections against the real listener in this event loop, with a real engine; time passes by calling the sweep."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from serving.http.protocol import InferenceProtocol
from serving.protocols import grpc
from tests.rig.wire import ANSWER, INFER, REQUEST, Answer, Served, call, grpc_request, infer, request, slow, until

UNKNOWN = "Request for unknown model: 'q' is not served here; GET /v2/models lists what is served: m, rows, slow, text"


async def test_an_inference_is_answered_with_the_headers_every_answer_has(served: Served) -> None:
    client = await served.client()
    client.send(infer())

    answer = await client.answer()

    assert (answer.status, answer.json) == (200, ANSWER)
    assert answer.headers.pop("date").endswith("GMT")
    assert answer.headers == {
        "penstock-revision": "r1",
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
    }


async def test_a_version_may_be_named(served: Served) -> None:
    client = await served.client()
    client.send(infer(path="/v2/models/m/versions/1/infer"), infer(path="/v2/models/m/versions/2/infer"))

    assert (await client.answer()).json == ANSWER
    answer = await client.answer()
    assert (answer.status, answer.json) == (
        404,
        {"error": "Request for unknown model: 'm' has no version '2'; it has 1"},
    )


async def test_binary_tensors_come_back_behind_the_json(served: Served) -> None:
    client = await served.client()
    raw = np.array([1, 2], "<f4").tobytes()
    head = orjson.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}],
            "parameters": {"binary_data_output": True},
        }
    )
    client.send(request("POST", INFER, head + raw, inference_header_content_length=str(len(head))))
    client.send(request("POST", INFER, raw, inference_header_content_length="0"))

    for _ in range(2):
        answer = await client.answer()
        length = int(answer.headers["inference-header-content-length"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert orjson.loads(answer.body[:length])["outputs"] == [
            {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
        ]
        assert answer.body[length:] == raw


async def test_rows_of_v1_are_answered_as_predictions(served: Served) -> None:
    client = await served.client()
    client.send(request("POST", "/v1/models/m:predict", b'{"instances": [1, 2.5]}'))

    assert (await client.answer()).json == {"predictions": [1.0, 2.5]}


async def test_a_grpc_call_is_answered_with_its_status_in_the_trailers(served: Served) -> None:
    client = await served.client()
    client.send(call("ModelInfer", grpc_request()))

    answer = await client.answer()

    assert (answer.status, answer.headers["content-type"], answer.trailers) == (
        200,
        "application/grpc",
        {"grpc-status": "0"},
    )
    assert grpc.InferResponse.FromString(answer.body[5:]) == grpc.InferResponse(
        model_name="m",
        model_version="1",
        id="7",
        outputs=[{"name": "x", "datatype": "FP32", "shape": [2]}],
        raw_output_contents=[np.array([1, 2], "<f4").tobytes()],
    )


async def test_every_unary_method_answers_over_http_1(served: Served) -> None:
    client = await served.client()
    fields = {"ModelReady": {"name": "m"}, "ModelMetadata": {"name": "m"}, "ModelConfig": {"name": "m"},
              "RepositoryModelLoad": {"model_name": "m"}, "RepositoryModelUnload": {"model_name": "m"}}  # fmt: skip
    answers = {}
    for name, (request_class, answer_class) in grpc.METHODS.items():
        if name in ("ModelInfer", "ModelStreamInfer"):
            continue
        client.send(call(name, request_class(**fields.get(name, {}))))
        answer = await client.answer()
        assert answer.trailers == {"grpc-status": "0"}, name
        answers[name] = answer_class.FromString(answer.body[5:])

    assert answers["ServerLive"].live
    assert answers["ServerReady"].ready
    assert answers["ModelReady"].ready
    assert answers["ServerMetadata"].name == "penstock"
    assert [tensor.name for tensor in answers["ModelMetadata"].inputs] == ["x"]
    assert answers["ModelConfig"].config.input[0].dims == []
    assert [(entry.name, entry.state) for entry in answers["RepositoryIndex"].models] == [
        ("m", "READY"),
        ("rows", "READY"),
        ("slow", "READY"),
        ("text", "READY"),
    ]
    client.send(infer())
    assert (await client.answer()).status == 503


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (call("ModelInfer", grpc_request(model_name="q")), "5",
         UNKNOWN),
        (call("ModelInfer", grpc_request(inputs=[{"name": "x", "datatype": "FP64", "shape": [1]}])), "3",
         "input 'x' of model 'm' has datatype FP64, expected FP32"),
        (call("NoSuchMethod", grpc_request()), "12", "the method 'NoSuchMethod' is not known here"),
        (call("ModelStreamInfer", grpc_request()), "12", "the method 'ModelStreamInfer' is not known here"),
        (request("POST", "/other.Service/Call", content_type="application/grpc+proto"), "12",
         "the method '/other.Service/Call' is not known here"),
        (request("POST", "/inference.GRPCInferenceService/ModelInfer", b"\0\0\0\0\1\xff"), "3",
         "the request is no inference.ModelInferRequest message: Error parsing message with type "
         "'inference.ModelInferRequest'"),
    ],
)  # fmt: skip
async def test_a_grpc_call_that_fails_says_so_in_its_headers(
    served: Served, data: bytes, status: str, message: str
) -> None:
    client = await served.client()
    client.send(data)

    answer = await client.answer()

    assert (answer.status, answer.body) == (200, b"")
    assert (answer.headers["grpc-status"], answer.headers["grpc-message"]) == (status, message)


async def test_the_beginning_of_a_compressed_grpc_message_is_unpacked_for_the_router(served: Served) -> None:
    client = await served.client()
    packed = gzip.compress(b"\x0a\x04echo" + bytes(1000))[:40]
    client.send(request("POST", "/penstock/grpc-head", packed, grpc_encoding="gzip"))
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, (b"\x0a\x04echo" + bytes(64)).hex().upper().encode())
    client.send(request("POST", "/penstock/grpc-head", packed, grpc_encoding="snappy"))
    assert (await client.answer()).status == 501


async def test_health_and_readiness_are_told_in_status_and_json(served: Served) -> None:
    client = await served.client()
    paths = ["/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v2/models/q/ready"]
    client.send(*(request("GET", path) for path in paths))
    assert [((answer := await client.answer()).status, answer.json) for _ in paths] == [
        (200, {"live": True}),
        (200, {"ready": True, "live": True}),
        (200, {"name": "m", "ready": True}),
        (
            404,
            {"error": UNKNOWN},
        ),
    ]

    served.plane.service.draining = True
    client.send(request("GET", "/v2/health/ready"))
    answer = await client.answer()
    assert (answer.status, answer.json, answer.headers["connection"]) == (
        503,
        {"ready": False, "live": True},
        "close",
    )
    assert await client.closed() == b""


async def test_answers_keep_the_order_of_pipelined_requests_of_every_kind(served: Served) -> None:
    client = await served.client()
    kinds = {
        "slow": slow(False),
        "infer": infer(),
        "application": request("GET", "/v2/models"),
        "grpc": call("ServerLive", grpc.METHODS["ServerLive"][0]()),
        "text": infer({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["q"]}]},
                      "/v2/models/text/infer"),
    }  # fmt: skip
    order = ["slow", "infer", "application", "infer", "grpc", "application", "text", "slow", "grpc", "infer"]
    client.send(*(kinds[name] for name in order))

    found = []
    for _ in order:
        answer = await client.answer()
        if answer.headers["content-type"] == "application/grpc":
            found.append("grpc")
        elif "models" in answer.json:
            found.append("application")
        else:
            found.append({"m": "infer"}.get(answer.json["model_name"], answer.json["model_name"]))
    assert found == order


async def test_a_thousand_pipelined_requests_behind_a_slow_one_are_answered(served: Served) -> None:
    client = await served.client()
    client.send(slow(False), *(infer({**REQUEST, "id": str(number)}) for number in range(1000)))

    assert (await client.answer()).json["model_name"] == "slow"
    assert [(await client.answer()).json["id"] for _ in range(1000)] == [str(number) for number in range(1000)]


async def test_a_request_may_come_byte_by_byte_or_in_chunks(served: Served) -> None:
    client = await served.client()
    data = infer()
    for at in range(len(data)):
        client.send(data[at : at + 1])
        await asyncio.sleep(0)
    assert (await client.answer()).json == ANSWER

    body = orjson.dumps(REQUEST)
    chunks = b"".join(b"1\r\n%b\r\n" % body[at : at + 1] for at in range(len(body)))
    client.send(
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode(), chunks, b"0\r\n\r\n"
    )
    assert (await client.answer()).json == ANSWER


async def test_bodies_are_unpacked_and_answers_packed_when_asked(served: Served) -> None:
    client = await served.client()
    large = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2000], "data": [0] * 2000}]}
    client.send(
        request("POST", INFER, gzip.compress(orjson.dumps(large)), content_encoding="gzip", accept_encoding="gzip")
    )

    answer = await client.answer()

    assert answer.headers["content-encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(answer.body))["outputs"][0]["data"] == [0.0] * 2000


def chunked(body: bytes, **headers: str) -> bytes:
    """An inference in chunks of 100 bytes."""
    lines = [f"POST {INFER} HTTP/1.1", "host: localhost", "transfer-encoding: chunked"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    parts = [body[at : at + 100] for at in range(0, len(body), 100)]
    return "\r\n".join([*lines, "", ""]).encode() + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in [*parts, b""])


PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (bytes, bytes),
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
}


@pytest.mark.parametrize("wire", ["plain", "chunked"])
@pytest.mark.parametrize("packing", PACKINGS)
async def test_each_form_of_an_inference_comes_packed_or_not_whole_or_in_chunks(
    served: Served, wire: str, packing: str
) -> None:
    """JSON, JSON with a tensor behind it, a tensor alone: all on one connection, sent before any is answered."""
    client = await served.client()
    x = np.arange(2000, dtype="<f4")
    tensor = {"name": "x", "datatype": "FP32", "shape": [2000]}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": x.nbytes}}]})
    pack, unpack = PACKINGS[packing]
    coded = {"content_encoding": packing, "accept_encoding": packing} if packing else {}
    for body, headers in (
        (orjson.dumps({"inputs": [{**tensor, "data": x.tolist()}]}), {}),
        (head + x.tobytes(), {"inference_header_content_length": str(len(head))}),
        (x.tobytes(), {"inference_header_content_length": "0"}),
    ):
        sent = {**coded, **headers}
        client.send(chunked(pack(body), **sent) if wire == "chunked" else request("POST", INFER, pack(body), **sent))

    for is_binary in (False, False, True):
        answer = await client.answer()
        assert answer.headers.get("content-encoding", "") == packing
        body = unpack(answer.body)
        length = int(answer.headers.get("inference-header-content-length", len(body)))
        output = orjson.loads(body[:length])["outputs"][0]
        found = np.frombuffer(body[length:], "<f4") if is_binary else np.array(output["data"], np.float32)
        assert found.tolist() == x.tolist()


async def test_a_client_that_waits_for_it_is_told_to_go_on(served: Served) -> None:
    client = await served.client()
    head, _, body = infer(expect="100-continue").partition(b"\r\n\r\n")
    client.send(head, b"\r\n\r\n")
    assert (await client.answer()).status == 100

    client.send(body)
    assert (await client.answer()).json == ANSWER


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(served: Served) -> None:
    client = await served.client()
    client.send(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n".encode())

    answer = await client.answer()

    assert (answer.status, answer.json, answer.headers["connection"]) == (
        413,
        {"error": "the request has 300000 bytes or more, the limit of this server is 200000 (--max-request-bytes)"},
        "close",
    )
    client.send(b"x" * 300000)
    assert await client.closed() == b""


async def test_a_body_that_turns_out_too_large_is_refused_and_the_rest_is_let_go(served: Served) -> None:
    client = await served.client()
    client.send(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    for _ in range(30):
        client.send(b"2710\r\n", b"x" * 10_000, b"\r\n")

    assert (await client.answer()).status == 413
    assert served.plane.admission.bytes == 0
    served.pass_time(6)
    assert await client.closed() == b""


async def test_bodies_of_all_requests_together_are_bounded(served: Served) -> None:
    one, other = await served.client(), await served.client()
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 190000\r\n\r\n".encode()
    one.send(head, b"x" * 180_000)
    await until(lambda: served.plane.admission.bytes == 180_000)
    other.send(head, b"x" * 180_000)

    assert (await other.answer()).json == {
        "error": "the server holds as many bytes of unanswered requests as it may; send again later"
    }
    one.writer.close()
    await until(lambda: served.plane.admission.bytes == 0)


async def test_headers_that_do_not_come_close_the_connection(served: Served) -> None:
    silent, dripping = await served.client(), await served.client()
    dripping.send(b"POST /v2/models/m/infer HTTP/1.1\r\nhost:")
    await until(lambda: any(getattr(connection, "url", b"") for connection in served.plane.connections))
    served.pass_time(9)
    assert len(served.plane.connections) == 2

    served.pass_time(11)

    assert await silent.closed() == b""
    answer = await dripping.answer()
    assert (answer.status, answer.json, answer.headers["connection"]) == (
        408,
        {"error": "the request did not come within its time; send it again, faster"},
        "close",
    )
    assert await dripping.closed() == b""


async def test_a_body_that_drips_closes_the_connection_and_one_that_flows_does_not(served: Served) -> None:
    dripping, flowing = await served.client(), await served.client()
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 190000\r\n\r\n".encode()
    dripping.send(head, b"x")
    flowing.send(head, b"x" * 170_000)
    await until(lambda: served.plane.admission.bytes == 170_000)

    served.pass_time(20)

    assert (await dripping.closed())[:12] == b"HTTP/1.1 408"
    dripping.writer.close()
    await until(lambda: len(served.plane.connections) == 1)


async def test_an_idle_connection_outlives_any_proxy_in_front_and_is_closed_at_last(served: Served) -> None:
    client = await served.client()
    client.send(infer())
    await client.answer()
    served.pass_time(615)
    client.send(infer())
    assert (await client.answer()).json == ANSWER

    served.pass_time(625)

    assert await client.closed() == b""


async def test_a_client_that_does_not_read_is_not_answered_further_and_at_last_cut_off(served: Served) -> None:
    client = await served.client()
    large = infer({"inputs": [{"name": "x", "datatype": "FP32", "shape": [9000], "data": [0.5] * 9000}]})
    (connection,) = served.plane.connections
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(400):
        client.send(large)
    await until(lambda: connection.flow.write_paused)  # type: ignore[attr-defined]
    served.pass_time(0)
    counters = served.plane.metrics.of("m", "1")
    answered = counters.successes
    assert answered < 400

    served.pass_time(29)
    assert served.plane.connections
    served.pass_time(70)

    await until(lambda: not served.plane.connections)
    assert counters.successes == answered


async def test_a_client_that_reads_late_gets_every_answer(served: Served) -> None:
    client = await served.client()
    large = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [9000], "data": [0.5] * 9000}]}
    (connection,) = served.plane.connections
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(200):
        client.send(infer({**large, "id": str(number + 1)}))
    await until(lambda: connection.flow.write_paused)  # type: ignore[attr-defined]

    client.writer.transport.resume_reading()  # type: ignore[attr-defined]

    assert [(await client.answer()).json["id"] for _ in range(200)] == [str(number + 1) for number in range(200)]


async def test_requests_of_a_client_that_has_gone_are_dropped(served: Served) -> None:
    one, other = await served.client(), await served.client()
    counters = served.plane.metrics.of("slow", "1")
    one.send(slow(True))
    await until(lambda: counters.pending == 1)
    other.send(slow(False))
    await until(lambda: counters.pending == 2)

    other.writer.close()
    one.writer.close()

    await until(lambda: counters.pending == 0)
    assert counters.failures == {"CANCELED": 2}


async def test_a_connection_that_asks_for_it_is_closed_after_the_answer(served: Served) -> None:
    client = await served.client()
    client.send(infer(connection="close"))
    answer = await client.answer()
    assert (answer.json, answer.headers["connection"]) == (ANSWER, "close")
    assert await client.closed() == b""

    client = await served.client()
    client.send(infer().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.answer()).json == ANSWER
    assert await client.closed() == b""


async def test_what_is_no_http_is_refused(served: Served) -> None:
    client = await served.client()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    assert (await client.closed()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_failed_requests_are_counted_by_reason(served: Served) -> None:
    client = await served.client()
    client.send(infer(), infer({}), infer({**REQUEST, "inputs": []}), infer(path="/v2/models/q/infer"))
    assert [(await client.answer()).status for _ in range(4)] == [200, 400, 400, 404]

    counters = served.plane.metrics.of("m", "1")
    assert (counters.successes, counters.failures) == (1, {"OTHER": 2})
    client.send(request("GET", "/metrics"))
    answer = await client.answer()
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    told, now = (text.partition("# HELP process_") for text in (answer.body.decode(), served.plane.metrics.text()))
    assert told[0] == now[0]


async def test_a_server_that_ends_answers_what_it_has_and_closes_each_connection_after_it(served: Served) -> None:
    busy, used, unused = await served.client(), await served.client(), await served.client()
    used.send(infer())
    await used.answer()
    counters = served.plane.metrics.of("slow", "1")
    busy.send(slow(True))
    await until(lambda: counters.pending == 1)
    served.plane.service.draining = True
    ending = asyncio.ensure_future(served.listener.drain(30))
    await asyncio.sleep(0)

    used.send(infer())
    answer = await used.answer()
    assert (answer.json, answer.headers["connection"]) == (ANSWER, "close")
    assert await unused.closed() == b""
    assert not ending.done()
    served.repository.find("slow", "").tick(1e18)
    answer = await busy.answer()
    assert (answer.status, answer.headers["connection"]) == (504, "close")
    await ending
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", served.port)


async def test_an_output_is_answered_as_classes_over_rest_and_grpc(served: Served) -> None:
    client = await served.client()

    client.send(infer({**REQUEST, "outputs": [{"name": "x", "parameters": {"classification": 1}}]}))

    outputs = (await client.answer()).json["outputs"]
    assert outputs == [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["2.000000:1"]}]
    asked = {"name": "x", "parameters": {"classification": {"int64_param": 2}}}
    client.send(call("ModelInfer", grpc_request(outputs=[asked])))
    message = grpc.InferResponse.FromString((await client.answer()).body[5:])
    assert (message.outputs[0].datatype, list(message.outputs[0].shape)) == ("BYTES", [2])
    assert message.raw_output_contents[0] == b"\x0a\0\0\0002.000000:1\x0a\0\0\0001.000000:0"


def events(answer: Answer) -> list[Any]:
    """The documents of server-sent events."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.body.endswith(b"\n\n") or not answer.body
    return [orjson.loads(line.removeprefix(b"data: ")) for line in answer.body.split(b"\n\n")[:-1]]


def generate(model: str, values: Any, kind: str = "generate_stream", **more: Any) -> bytes:
    return infer({"x": values, **more}, f"/v2/models/{model}/{kind}")


def told(model: str, *values: float) -> list[Any]:
    return [{"model_name": model, "model_version": "1", "id": "7", "x": value} for value in values]


async def test_a_stream_tells_each_response_as_an_event_and_the_connection_goes_on(served: Served) -> None:
    client = await served.client()

    client.send(generate("rows", [1, 2, 3], id="7"), generate("rows", []), infer())

    assert events(await client.answer()) == told("rows", 1.0, 2.0, 3.0)
    assert events(await client.answer()) == []
    assert (await client.answer()).json == ANSWER


async def test_a_model_with_one_response_streams_that(served: Served) -> None:
    client = await served.client()

    client.send(generate("m", 2, id="7"), infer({"x": 2, "id": "7"}, "/v2/models/m/versions/1/generate_stream"))

    assert [events(await client.answer()) for _ in range(2)] == [told("m", 2.0), told("m", 2.0)]


async def test_generate_gives_exactly_one_response(served: Served) -> None:
    client = await served.client()
    client.send(*(generate(model, [2], "generate", id="7") for model in ("m", "rows")))
    client.send(generate("rows", [1, 2], "generate"))

    assert [(await client.answer()).json for _ in range(2)] == told("m", 2.0) + told("rows", 2.0)
    refused = await client.answer()
    assert (refused.status, refused.json) == (
        400,
        {
            "error": "the model gives more than one response to this request; "
            "ask with generate_stream or ModelStreamInfer, which take any number"
        },
    )


async def test_a_stream_that_fails_before_its_first_response_is_refused_as_any_request(served: Served) -> None:
    client = await served.client()

    client.send(
        generate("nope", 1),
        generate("rows", "text"),
        generate("rows", [1], y=1),
        infer({}, "/v2/models/rows/generate_stream"),
    )

    assert [(await client.answer()).status for _ in range(4)] == [404, 400, 200, 400]


LONG = orjson.dumps({"x": [0] * 90_000, "id": "i" * 400})
"""A request whose responses are more than all buffers between the server and a client hold."""


async def test_a_stream_whose_client_goes_away_ends(served: Served) -> None:
    client = await served.client()
    client.send(request("POST", "/v2/models/rows/generate_stream", LONG))
    await client.reader.readuntil(b"data: ")
    counters = served.repository.find("rows", "").counters
    assert counters.pending == 1

    client.writer.transport.abort()

    await until(lambda: counters.pending == 0 and counters.failures.get("CANCELED") == 1)


async def test_a_stream_whose_time_is_over_says_so_in_its_last_event(served: Served) -> None:
    client = await served.client()
    client.send(request("POST", "/v2/models/rows/generate_stream", LONG))
    await client.reader.readuntil(b"data: ")

    served.repository.find("rows", "").tick(1e18)

    client.reader._limit = 2**30  # type: ignore[attr-defined]
    rest = (await client.reader.readuntil(b"\r\n0\r\n\r\n")).split(b"data: ")[-1]
    assert orjson.loads(rest.split(b"\n\n")[0]) == {
        "error": "model 'rows' did not answer within the time limit of the request (at most 60 s, limits.timeout)"
    }
    client.send(infer())
    assert (await client.answer()).json == ANSWER


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 501),
        ("127.8.8.8", 501),
        ("::1", 501),
        ("::ffff:127.0.0.1", 501),
        ("10.0.0.7", 403),
        ("::ffff:10.0.0.7", 403),
        ("fe80::1%eth0", 403),
    ],
)
async def test_what_others_asked_is_shown_on_this_machine_alone(served: Served, address: str, status: int) -> None:
    """501: nobody keeps requests here."""
    client = await served.client()
    [connection] = served.plane.connections
    assert isinstance(connection, InferenceProtocol)
    connection.client = (address, 1)

    client.send(request("GET", "/debug/requests"))

    assert (await client.answer()).status == status
