import pytest

from serving.errors import InvalidInput
from serving.protocols import binary


def test_a_body_is_split_where_its_header_says() -> None:
    head, tail = binary.split(b'{"a":1}xyz', 7)

    assert (bytes(head), bytes(tail)) == (b'{"a":1}', b"xyz")


def test_without_the_header_all_of_a_body_is_json() -> None:
    head, tail = binary.split(b"{}", None)

    assert (bytes(head), bytes(tail)) == (b"{}", b"")


def test_a_header_beyond_the_body_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        binary.split(b"{}", 9)

    assert str(refused.value) == (
        "the header Inference-Header-Content-Length is 9, expected at most the 2 bytes of the body"
    )


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"x", b"9" * 19])
def test_a_header_that_is_no_number_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"the header Inference-Header-Content-Length is .*, expected a number"):
        binary.header_length(value)


def test_tensors_take_their_bytes_in_turn_and_none_may_be_left() -> None:
    reader = binary.Reader(memoryview(b"abcdef"))

    assert (bytes(reader.take("a", 2)), bytes(reader.take("b", 3))) == (b"ab", b"cde")
    with pytest.raises(InvalidInput) as refused:
        reader.finish()
    assert str(refused.value) == "1 bytes follow the last tensor, expected none"


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (7, "tensor 't' has binary_data_size 7, expected at most the 6 bytes that follow; "
            "is the header Inference-Header-Content-Length set?"),
        (-1, "tensor 't' has binary_data_size -1, expected a number of bytes"),
        (True, "tensor 't' has binary_data_size True, expected a number of bytes"),
        ("6", "tensor 't' has binary_data_size '6', expected a number of bytes"),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_is_refused(size: object, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        binary.Reader(memoryview(b"abcdef")).take("t", size)

    assert str(refused.value) == message
