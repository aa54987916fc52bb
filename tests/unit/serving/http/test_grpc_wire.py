import gzip

import pytest

from serving.errors import InvalidInput, TooLarge, Unsupported
from serving.http import grpc_wire
from serving.http.grpc_wire import Malformed, NotOneMessage

NONE = "the call ended without a whole message; expected one"
BOMB = gzip.compress(b"\0" * 200, mtime=0)


def test_a_message_is_what_follows_its_prefix() -> None:
    assert bytes(grpc_wire.message(b"\0\0\0\0\3abc", "", 100)) == b"abc"
    packed = gzip.compress(b"abc")
    assert grpc_wire.message(b"\1" + len(packed).to_bytes(4, "big") + packed, "gzip", 100) == b"abc"


@pytest.mark.parametrize(
    ("body", "encoding", "kind", "text"),
    [
        (b"", "", NotOneMessage, NONE),
        (b"\0\0", "", NotOneMessage, NONE),
        (b"\0\0\0\0\3ab", "", NotOneMessage, NONE),
        (b"\2\0\0\0\2ab", "", NotOneMessage, NONE),
        (b"\0\0\0\0\1ab", "", NotOneMessage, "the call has 1 bytes behind its first message; expected one message"),
        (b"\0\0\0\1\0ab", "", TooLarge, "the gRPC message says 256 bytes, the limit of this server is 100"),
        (b"\1\0\0\0\1a", "", Malformed, "the gRPC message is compressed, and grpc-encoding does not say how; "
         "send gzip, deflate or none"),
        (b"\1\0\0\0\1a", "gzip", Malformed, "the body's gzip data is cut off after 1 bytes"),
        (b"\1\0\0\0\1a", "snappy", Unsupported,
         "the content encoding 'snappy' is not known here; send gzip, deflate or none"),
        (b"\1" + len(BOMB).to_bytes(4, "big") + BOMB, "gzip", TooLarge,
         "the body unpacks to more than 100 bytes, the limit of this server (--max-request-bytes)"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_is_refused(body: bytes, encoding: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as refused:
        grpc_wire.message(body, encoding, 105)

    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(b"7S", 7), (b"2H", 7200), (b"3M", 180), (b"250m", 0.25), (b"5u", 5e-6), (b"9n", 9e-9),
     (b"123456789S", 123456789)],
)  # fmt: skip
def test_a_timeout_is_read_in_its_unit(header: bytes, seconds: float) -> None:
    assert grpc_wire.timeout_s(header) == pytest.approx(seconds)


@pytest.mark.parametrize("header", [b"", b"S", b"7", b"-7S", b"7s", b"1.5S", b"\xb2S", b"9" * 20 + b"S"])
def test_a_timeout_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        grpc_wire.timeout_s(header)

    assert str(refused.value) == (
        f"grpc-timeout '{header.decode('latin-1')}' is no time; expected up to 8 digits and H, M, S, m, u or n"
    )


def test_an_answer_has_its_status_in_the_trailers_and_a_refusal_in_the_headers() -> None:
    assert grpc_wire.answer(b"abc") == (
        b"content-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
        b"8\r\n\0\0\0\0\3abc\r\n0\r\ngrpc-status: 0\r\n\r\n"
    )
    assert grpc_wire.refusal(InvalidInput("50 % of 'ä'\n")) == (
        b"content-type: application/grpc\r\ngrpc-status: 3\r\n"
        b"grpc-message: 50 %25 of '%C3%A4'%0A\r\ncontent-length: 0\r\n\r\n"
    )
