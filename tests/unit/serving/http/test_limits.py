"""What a hostile or careless client may send: each is answered, bounded, and disturbs nobody else."""

import asyncio
import gzip
import resource
import zlib
from typing import Any

import orjson
import pytest

from tests.rig.wire import ANSWER, INFER, REQUEST, Client, Served, call, grpc_request, infer, request, slow, until

HEAD = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n".encode()
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def refused(client: Client) -> tuple[int, str]:
    """Status and message of an answer after which the connection ends."""
    answer = await client.answer()
    assert answer.headers["connection"] == "close"
    assert await client.closed() == b""
    return answer.status, answer.json["error"]


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"GET /" + b"x" * 9000, 414,
         "the request's target is longer than 8192 bytes, the limit of this server"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", 431, "the request has 129 headers, the limit is 128"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 65_600 + b"\r\n\r\n", 431,
         "the request's headers have 65606 bytes, the limit is 65536"),
        (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Transfer-Encoding can't be present with Content-Length"),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Content-Length can't be present with Transfer-Encoding"),
        (HEAD + b"transfer-encoding: chunked, identity\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Invalid `Transfer-Encoding` header value"),
        (HEAD + b"transfer-encoding : chunked\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Invalid header field char"),
        (HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Duplicate Content-Length"),
        (HEAD + b"content-length: -3\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Invalid character in Content-Length"),
        (HEAD + b"content-length: +3\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Invalid character in Content-Length"),
        (HEAD + b"content-length: 99999999999999999999\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Content-Length overflow"),
        (HEAD + b"content-length: 99999999999999999\r\n\r\n", 413,
         "the request has 99999999999999999 bytes or more, the limit of this server is 200000 (--max-request-bytes)"),
        (b"POST /v2/repository/index HTTP/1.1\r\ncontent-length: 300000\r\n\r\n", 413,
         "the request has more than 200000 bytes, the limit of this server"),
        (CHUNKED + b"fffffffffffffffff\r\n", 400, "what was sent is no HTTP/1.1 request: Chunk size overflow"),
        (CHUNKED + b"-1\r\n", 400, "what was sent is no HTTP/1.1 request: Invalid character in chunk size"),
        (CHUNKED + b"1\r\nab\r\n", 400, "what was sent is no HTTP/1.1 request: Expected LF after chunk data"),
        (HEAD + b"a: b\r\n c: d\r\n\r\n", 400,
         "what was sent is no HTTP/1.1 request: Unexpected whitespace after header value"),
        (HEAD + b"a\0b: c\r\n\r\n", 400, "what was sent is no HTTP/1.1 request: Invalid header token"),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400, "what was sent is no HTTP/1.1 request: Expected CRLF after version"),
        (b"BREW / HTTP/1.1\r\n\r\n", 400, "what was sent is no HTTP/1.1 request: Invalid method encountered"),
        (b"get / HTTP/1.1\r\n\r\n", 400, "what was sent is no HTTP/1.1 request: Invalid method encountered"),
        (b"GET / HTTP/3.0\r\n\r\n", 400, "what was sent is no HTTP/1.1 request: Invalid HTTP version"),
    ],
)  # fmt: skip
async def test_what_is_no_request_or_too_large_is_refused_before_it_is_read(
    served: Served, data: bytes, status: int, message: str
) -> None:
    client = await served.client()
    client.send(data)

    assert await refused(client) == (status, message)


async def test_a_header_without_end_is_refused_once_it_is_too_long(served: Served) -> None:
    client = await served.client()
    client.send(HEAD, b"a: ")
    for _ in range(1000):
        client.send(b"b" * 4096)

    status, message = await refused(client)

    assert (status, message.partition("bytes")[2]) == (431, " beside its body, the limit of this server is 65536")


@pytest.mark.parametrize("flood", [b"1;" + b"x" * 5000 + b"\r\ny\r\n", b"0\r\na: " + b"b" * 5000])
async def test_what_stands_around_chunks_is_bounded(served: Served, flood: bytes) -> None:
    client = await served.client()
    client.send(CHUNKED, flood)
    rest = flood if flood[:1] == b"1" else b"b" * 5000
    for _ in range(200):
        client.send(rest)
        await asyncio.sleep(0)

    assert (await refused(client))[0] == 431


async def test_trailers_are_let_go_and_the_connection_goes_on(served: Served) -> None:
    client = await served.client()
    body = orjson.dumps(REQUEST)
    trailed = CHUNKED + b"%x\r\n%b\r\n0\r\nx-sum: 7\r\ngrpc-status: 1\r\n\r\n" % (len(body), body)
    client.send(trailed, infer())

    assert [(await client.answer()).json for _ in range(2)] == [ANSWER, ANSWER]


async def test_many_tiny_chunks_are_taken_and_more_are_refused(served: Served) -> None:
    client = await served.client()
    body = orjson.dumps(REQUEST)
    padding = b"1\r\n \r\n"
    client.send(CHUNKED, padding * (65_536 - 1), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert (await client.answer()).json == ANSWER

    client.send(CHUNKED, padding * 65_538)
    assert await refused(client) == (
        413,
        "the body comes in more than 65536 chunks, the limit of this server",
    )
    assert served.plane.admission.bytes == 0


async def test_garbage_after_requests_is_refused_after_their_answers(served: Served) -> None:
    client = await served.client()
    client.send(slow(False), infer(), request("GET", "/v2/models"), b"\x16\x03\x01 hello")

    assert (await client.answer()).json["model_name"] == "slow"
    assert (await client.answer()).json == ANSWER
    assert (await client.answer()).json == {"models": ["m", "rows", "slow", "text"]}
    assert await refused(client) == (400, "what was sent is no HTTP/1.1 request: Invalid method encountered")


@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
async def test_a_body_that_cannot_be_read_on_is_refused_and_what_follows_is_not_read(served: Served, path: str) -> None:
    client = await served.client()
    client.send(f"POST {path} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{{\r\n".encode())
    await until(lambda: any(connection._body_bytes == 1 for connection in served.plane.connections))  # type: ignore[attr-defined]
    client.send(b"zz\r\n", infer())

    assert await refused(client) == (400, "what was sent is no HTTP/1.1 request: Invalid character in chunk size")


async def test_a_wish_for_another_protocol_is_not_granted_and_ends_the_connection(served: Served) -> None:
    for path in ("/v2/health/live", "/v2"):
        client = await served.client()
        client.send(f"GET {path} HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".encode(), infer())
        assert (await client.answer()).status == 200
        assert await client.closed() == b""

    client = await served.client()
    client.send(infer(connection="upgrade", upgrade="h2c"))
    assert await refused(client) == (
        400,
        "the request asks for another protocol (Upgrade) and has a body; send it without",
    )

    client = await served.client()
    client.send(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", infer())
    assert (await client.answer()).status in (400, 405)
    assert await client.closed() == b""


async def test_a_body_that_says_it_is_too_large_is_not_asked_for(served: Served) -> None:
    client = await served.client()
    client.send(HEAD, b"expect: 100-continue\r\ncontent-length: 200001\r\n\r\n")

    assert (await refused(client))[0] == 413


@pytest.mark.parametrize("opening", [b"[", b'{"inputs":', b'{"a":[', b'[{"a":'])
@pytest.mark.parametrize("path", [INFER, "/v1/models/m:predict", "/v2/models/m/generate"])
async def test_json_of_any_depth_is_refused_at_once(served: Served, opening: bytes, path: str) -> None:
    client = await served.client()
    client.send(request("POST", path, opening * (199_000 // len(opening))), infer())

    answer = await client.answer()

    assert (answer.status, answer.json["error"][:22]) == (400, "the request is no JSON")
    assert (await client.answer()).json == ANSWER


def bomb(coding: str, unpacked: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(unpacked // 2**20)]) + packer.flush()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_bomb_is_not_unpacked_beyond_the_limit(served: Served, coding: str) -> None:
    data = bomb(coding, 160 * 2**20)
    assert len(data) < 200_000
    client = await served.client()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    client.send(request("POST", INFER, data, content_encoding=coding))
    answer = await client.answer()
    message = grpc_request().SerializeToString()
    framed = b"\1" + len(data).to_bytes(4, "big") + data
    client.send(call("ModelInfer", grpc_request()).replace(b"\0" + len(message).to_bytes(4, "big") + message, b""))
    client.send(request("POST", "/inference.GRPCInferenceService/ModelInfer", framed,
                        content_type="application/grpc", grpc_encoding=coding))  # fmt: skip

    assert (answer.status, answer.json) == (
        413,
        {"error": "the body unpacks to more than 200000 bytes, the limit of this server (--max-request-bytes)"},
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


async def test_a_packed_body_is_not_held_twice_as_long_as_it_is_cut_off(served: Served) -> None:
    client = await served.client()
    client.send(request("POST", INFER, gzip.compress(orjson.dumps(REQUEST))[:-4], content_encoding="gzip"))

    assert (await client.answer()).json == {"error": "the body's gzip data is cut off after 79 bytes"}


async def test_head_is_answered_like_get_without_the_body(served: Served) -> None:
    client = await served.client()
    client.send(request("HEAD", "/v2/health/live", connection="close"))

    head, _, body = (await client.closed()).partition(b"\r\n\r\n")

    assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b"")
    assert b"content-length: 13" in head


async def test_a_target_may_be_a_whole_url(served: Served) -> None:
    client = await served.client()
    paths = ("http://somewhere/v2/models", "http://somewhere", "http://somewhere?q")
    client.send(infer(path=f"http://somewhere:80{INFER}"), *(request("GET", path) for path in paths))

    assert (await client.answer()).json == ANSWER
    assert [(await client.answer()).status for _ in paths] == [200, 200, 200]


async def test_a_client_that_has_sent_its_last_byte_still_gets_its_answers(served: Served) -> None:
    client = await served.client()
    client.send(slow(False), request("GET", "/v2/models"), infer())
    client.writer.write_eof()

    answers = [await client.answer() for _ in range(3)]
    while answers[0].status == 100:
        answers = [*answers[1:], await client.answer()]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert answers[2].json == ANSWER
    assert await client.closed() == b""


async def test_a_client_that_ends_in_the_middle_of_a_request_is_let_go(served: Served) -> None:
    client = await served.client()
    client.send(infer()[:-1])
    client.writer.write_eof()

    assert await client.closed() == b""
    await until(lambda: not served.plane.connections)


async def test_connections_beyond_the_limit_are_told_so_and_the_others_go_on(served: Served) -> None:
    served.plane._max_connections = 5
    clients = [await served.client() for _ in range(3)]
    over = await served.client()

    answer = await over.answer()
    assert (answer.status, answer.json, answer.headers["retry-after"]) == (
        503,
        {"error": "your address has 3 connections, the limit for one; close some of them"},
        "1",
    )
    assert await over.closed() == b""
    for client in clients:
        client.send(infer())
        assert (await client.answer()).json == ANSWER
    clients[0].writer.close()
    await until(lambda: len(served.plane.connections) == 2)
    again = await served.client()
    again.send(infer())
    assert (await again.answer()).json == ANSWER


async def test_all_addresses_together_have_a_limit_too(served: Served) -> None:
    served.plane._max_connections = 1
    await served.client()

    answer = await (await served.client()).answer()

    assert (answer.status, answer.json["error"]) == (503, "the server has 1 connections, its limit; try again later")


async def full(served: Served) -> list[Client]:
    """Clients whose requests fill the queue of ``slow``."""
    clients = [await served.client() for _ in range(8)]
    for client in clients:
        client.send(slow(True))
    await until(lambda: served.plane.metrics.of("slow", "1").pending == 8)
    return clients


async def test_a_refusal_comes_before_the_body_which_is_then_let_go(served: Served) -> None:
    await full(served)
    client = await served.client()
    head, _, body = slow(True).partition(b"\r\n\r\n")
    client.send(head, b"\r\n\r\n")

    answer = await client.answer()
    client.send(body, infer())

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.json["error"].startswith("model 'slow' has 8 requests waiting, its limit;")
    assert (await client.answer()).json == ANSWER


async def test_a_refused_body_whose_end_nobody_knows_ends_the_connection(served: Served) -> None:
    await full(served)
    client = await served.client()
    client.send(b"POST /v2/models/slow/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")

    assert (await refused(client))[0] == 503
    client.writer.close()
    await until(lambda: len(served.plane.connections) == 8)


async def test_refusals_keep_their_place_among_pipelined_requests(served: Served) -> None:
    await full(served)
    client = await served.client()
    client.send(infer(), slow(True), request("GET", "/v2/models"), slow(True), infer())

    assert [(await client.answer()).status for _ in range(5)] == [200, 503, 200, 503, 200]


async def test_a_grpc_call_is_refused_before_its_message_too(served: Served) -> None:
    served.plane.admission.max_requests = 0
    client = await served.client()
    head = call("ModelInfer", grpc_request()).partition(b"\r\n\r\n")[0]
    client.send(head, b"\r\n\r\n")

    answer = await client.answer()

    assert (answer.status, answer.headers["grpc-status"]) == (200, "14")
    assert answer.headers["grpc-message"].startswith("the server has 0 requests in work, its limit")


async def test_an_unknown_model_is_said_before_the_body(served: Served) -> None:
    client = await served.client()
    client.send(b"POST /v2/models/q/infer HTTP/1.1\r\ncontent-length: 5\r\n\r\n")

    assert (await client.answer()).status == 404


@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
async def test_slow_clients_are_told_so_on_every_way_and_disturb_nobody(served: Served, path: str) -> None:
    crowd = [await served.client() for _ in range(50)]
    for number, client in enumerate(crowd):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".encode()
        client.send(head[: 20 + number] if number % 2 else head + b"{")
    other = await served.client()
    other.send(infer())
    assert (await other.answer()).json == ANSWER
    begun: Any = served.plane.connections
    await until(lambda: sum(connection._begun for connection in begun) == 50)

    served.pass_time(25)

    assert [(await client.answer()).status for client in crowd] == [408] * 50
    other.send(infer())
    assert (await other.answer()).json == ANSWER


async def test_a_slow_request_behind_others_is_told_so_after_their_answers(served: Served) -> None:
    client = await served.client()
    client.send(infer(), request("GET", "/v2/models"), infer()[:40])
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    connection: Any = next(iter(served.plane.connections))
    await until(lambda: connection._begun)

    served.pass_time(11)

    assert (await refused(client))[0] == 408
