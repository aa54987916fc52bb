"""gRPC as no client library would send it: the same on the model server's own port and through the router.

Where grpcio's core decides by itself before our code is asked, a case says what it gives there.
"""

from __future__ import annotations

import gzip
import socket
import struct
import zlib
from typing import Any

import pytest

from serving.protocols import grpc
from tests.conformance import ways
from tests.conformance.ways import Way, endless, request
from tests.rig import model_server
from tests.rig import raw_http2 as raw

MESSAGE = request().SerializeToString()
WHOLE = raw.framed(MESSAGE)
PACKED = gzip.compress(MESSAGE, mtime=0)
NONE = ("12", "the call ended without a whole message; expected one")
UNIMPLEMENTED, INTERNAL, EXHAUSTED = "12", "13", "8"


def ask(way: Way, headers: raw.Headers, *parts: bytes) -> raw.Answer:
    """A call with these headers and parts of a body."""
    with raw.connected(way.authority) as client:
        stream = client.open(headers, end=not parts)
        for number, part in enumerate(parts):
            client.send(stream, part, end=number == len(parts) - 1)
        return client.answer(stream)


def infer(**headers: str) -> raw.Headers:
    return raw.call("ModelInfer", penstock_model="default/echo", **headers)


def test_a_body_may_come_byte_by_byte(way: Way) -> None:
    found = ask(way, raw.call("ModelInfer"), *[WHOLE[i : i + 1] for i in range(len(WHOLE))])
    assert found.status == ("0", "")
    assert len(found.body) == 5 + int.from_bytes(found.body[1:5])


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((), NONE),
        ((b"",), NONE),
        ((b"\0\0\0",), NONE),
        ((raw.framed(MESSAGE, length=100),), NONE),
    ],
    ids=["half-closed", "half-closed by data", "cut-off prefix", "cut-off message"],
)
def test_a_call_without_a_whole_message_is_refused(way: Way, parts: tuple[bytes, ...], status: tuple[str, str]) -> None:
    assert ask(way, infer(), *parts).status == status
    assert ask(way, raw.call("ServerLive"), *parts).status == status


def test_a_flag_that_does_not_exist_is_refused(way: Way) -> None:
    assert ask(way, infer(), raw.framed(MESSAGE, flag=2)).status[0] not in ("", "0")


def test_a_second_message_in_a_unary_call_is_refused(way: Way) -> None:
    found = ask(way, infer(), WHOLE + WHOLE)
    expected = (UNIMPLEMENTED, "the call has 35 bytes behind its first message; expected one message")
    # To look for more costs a call that has none a twentieth, on grpcio's port.
    assert found.status == (expected if way.routed else ("0", ""))


def test_a_message_that_says_to_be_huge_is_refused(way: Way) -> None:
    assert ask(way, infer(), b"\0\xff\xff\xff\xff" + bytes(100)).status[0] == EXHAUSTED


@pytest.mark.parametrize(
    ("encoding", "message", "routed", "direct"),
    [
        ("gzip", raw.framed(PACKED, flag=1), ("0", ""), "0"),
        ("gzip", raw.framed(MESSAGE, flag=0), ("0", ""), "0"),
        ("", raw.framed(MESSAGE, flag=1), (INTERNAL, "the gRPC message is compressed, and grpc-encoding does not say "
                                           "how; send gzip, deflate or none"), INTERNAL),
        ("gzip", raw.framed(b"abc", flag=1), (INTERNAL, "the body is no gzip data: Error -3 while decompressing data: "
                                              "incorrect header check"), INTERNAL),
        ("snappy", raw.framed(MESSAGE, flag=1), (UNIMPLEMENTED, "the content encoding 'snappy' is not known here; "
                                                 "send gzip, deflate or none"), INTERNAL),
    ],
    ids=["packed", "allowed to be packed", "packed and not said how", "no gzip", "unknown"],
)  # fmt: skip
def test_compression_is_what_the_headers_say(
    way: Way, encoding: str, message: bytes, routed: tuple[str, str], direct: str
) -> None:
    found = ask(way, infer(**({"grpc_encoding": encoding} if encoding else {})), message)
    assert found.status == routed if way.routed else found.status[0] == direct


UNPACK: dict[str | None, Any] = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}


@pytest.mark.parametrize(("wish", "encoding"), [("gzip", "gzip"), ("deflate", "deflate"), ("", None), ("snappy", None)])
def test_an_answer_is_compressed_for_a_client_that_asks(way: Way, wish: str, encoding: str | None) -> None:
    wishes = {"penstock_compression": wish} if wish else {}
    found = ask(way, infer(**wishes), raw.framed(request(size=10_000).SerializeToString()))
    assert found.status == ("0", "")
    assert int.from_bytes(found.body[1:5]) == len(found.body) - 5
    assert (found.headers.get("grpc-encoding") if found.body[0] else None) == encoding
    assert grpc.InferResponse.FromString(UNPACK[encoding](found.body[5:])) == ways.answer(10_000)


@pytest.mark.parametrize("value", ["soon", "-1S", "1", "S", "1.5S", "1s"])
def test_a_time_limit_that_is_none_is_refused(way: Way, value: str) -> None:
    code, text = ask(way, infer(grpc_timeout=value), WHOLE).status
    assert code == INTERNAL
    assert "grpc-timeout" in text


@pytest.mark.parametrize("value", ["0S", "1n", "1u", "50m"])
def test_a_time_limit_in_a_small_unit_ends_a_call_without_end(way: Way, value: str) -> None:
    # The core rounds up to a millisecond, in which a quick model may answer.
    found = ask(way, raw.call("ModelInfer", grpc_timeout=value), raw.framed(endless().SerializeToString()))
    assert found.status[0] == "4"


@pytest.mark.parametrize("value", ["9S", "1M", "99999999H", "123456789S"])
def test_a_time_limit_in_a_large_unit_leaves_time_to_answer(way: Way, value: str) -> None:
    assert ask(way, infer(grpc_timeout=value), WHOLE).status[0] == "0"


def test_a_time_limit_that_is_over_at_once_keeps_a_call_from_the_engine(way: Way) -> None:
    executed = way.executed("slow")
    found = ask(way, raw.call("ModelInfer", grpc_timeout="0S"), raw.framed(endless().SerializeToString()))
    assert found.status[0] == "4"
    way.until_pending(0)
    assert way.executed("slow") == executed


def test_what_is_no_call_is_refused(way: Way) -> None:
    get = ask(way, raw.call("ModelInfer", method="GET"))
    assert get.status[0] == UNIMPLEMENTED if way.routed else get.reset is not None


def test_another_content_type_is_no_call_for_the_router(way: Way) -> None:
    found = ask(way, raw.call("ModelInfer", content_type="application/json"), WHOLE)
    assert found.headers[":status"] == ("415" if way.routed else "200")


def test_a_content_type_of_grpc_with_a_format_is_taken(way: Way) -> None:
    assert ask(way, infer(content_type="application/grpc+proto"), WHOLE).status == ("0", "")


def test_a_client_that_resets_a_call_in_the_middle_of_its_body_may_go_on(way: Way) -> None:
    with raw.connected(way.authority) as client:
        first = client.open(infer())
        client.send(first, WHOLE[:20])
        client.reset(first)
        second = client.open(infer())
        client.send(second, WHOLE, end=True)
        assert client.answer(second).status == ("0", "")


def test_a_client_that_resets_a_call_leaves_the_queue(way: Way) -> None:
    with raw.connected(way.authority) as client:
        stream = client.open(raw.call("ModelInfer"))
        client.send(stream, raw.framed(endless().SerializeToString()), end=True)
        way.until_pending(1)
        client.reset(stream)
        way.until_pending(0)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_connection_that_dies_takes_its_calls_with_it(way: Way, method: str) -> None:
    before = way.cancelled()
    with raw.connected(way.authority) as client:
        for _ in range(2):
            stream = client.open(raw.call(method))
            client.send(stream, raw.framed(endless().SerializeToString()), end=method == "ModelInfer")
        way.until_pending(2)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    way.until_pending(0)
    model_server.until(lambda: way.cancelled() == before + 2, "both are counted as cancelled")


def test_frames_that_are_no_frames_end_the_connection_and_nothing_else(way: Way) -> None:
    with raw.connected(way.authority) as client:
        client.socket.sendall(b"\xff" * 100)
        while not client.closed:
            client.receive()
    assert ask(way, infer(), WHOLE).status == ("0", "")


def test_a_stream_that_ends_inside_a_message_is_ended(way: Way) -> None:
    found = ask(way, raw.call("ModelStreamInfer", penstock_model="default/echo"), WHOLE, raw.framed(MESSAGE, length=99))
    assert found.status[0] != ""
    assert found.ended
