import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidInput, TooLarge, Unsupported
from serving.http import coding


@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_what_was_packed_is_unpacked(body: bytes, name: str) -> None:
    assert coding.unpack(coding.pack(body, name), name, limit=3000) == body


def test_others_pack_and_unpack_alike() -> None:
    assert coding.unpack(gzip.compress(b"seven"), "gzip", 10) == b"seven"
    assert coding.unpack(zlib.compress(b"seven"), "deflate", 10) == b"seven"
    assert gzip.decompress(coding.pack(b"seven", "gzip")) == b"seven"


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_the_beginning_can_be_had_of_what_is_cut_off(name: str) -> None:
    whole = bytes(range(256)) * 100
    assert coding.beginning(coding.pack(whole, name)[:600], name, 70) == whole[:70]
    assert coding.beginning(b"", name, 70) == b""
    with pytest.raises(InvalidInput, match=f"the body is no {name} data"):
        coding.beginning(b"seven", name, 70)


def test_a_body_that_would_become_too_large_is_refused_before_it_does() -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)

    with pytest.raises(TooLarge) as refused:
        coding.unpack(bomb, "gzip", limit=1000)

    assert str(refused.value) == (
        "the body unpacks to more than 1000 bytes, the limit of this server (--max-request-bytes)"
    )


def test_a_body_that_is_not_what_it_says_is_refused() -> None:
    whole = gzip.compress(b"seven" * 100)
    cases = {
        (b"seven", "gzip"): (InvalidInput,
                             "the body is no gzip data: Error -3 while decompressing data: incorrect header check"),
        (whole[:-3], "gzip"): (InvalidInput, f"the body's gzip data is cut off after {len(whole) - 3} bytes"),
        (b"seven", "br"): (Unsupported, "the content encoding 'br' is not known here; send gzip, deflate or none"),
    }  # fmt: skip

    for (body, name), (kind, message) in cases.items():
        with pytest.raises(kind) as refused:
            coding.unpack(body, name, 1000)
        assert str(refused.value) == message


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, gzip;q=0.5, deflate", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("GZIP", "gzip"),
        ("br", None),
        ("identity", None),
        ("", None),
    ],
)
def test_the_first_coding_known_here_is_chosen(header: str, name: str | None) -> None:
    assert coding.accepted(header) == name
