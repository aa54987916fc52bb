import os
import socket
import threading

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.engines import frames
from serving.engines.frames import Channel, Region
from serving.tensors import DTYPES, Array, Tensor


class Pair:
    """Both ends of a connection in one process."""

    def __init__(self, shared: bool = True) -> None:
        self.sockets = socket.socketpair()
        descriptors = [Region.make("a").descriptor, Region.make("b").descriptor] if shared else None
        if descriptors is None:
            self.near, self.far = (Channel(end, None, None) for end in self.sockets)
            return
        there = [os.dup(descriptor) for descriptor in descriptors]
        self.near = Channel(self.sockets[0], Region(descriptors[0]), Region(descriptors[1]))
        self.far = Channel(self.sockets[1], Region(there[1]), Region(there[0]))

    def carried(self, *tensors: Tensor) -> list[Tensor]:
        """What arrives at the far end."""
        sending = threading.Thread(target=self.near.send, args=({"call": 7}, tensors))
        sending.start()
        head, arrived = self.far.receive()
        sending.join()
        assert head["call"] == 7
        return arrived

    def close(self) -> None:
        self.near.close()
        self.far.close()


def same(one: Tensor, other: Tensor) -> bool:
    equal_nan = one.array.dtype.kind == "f"
    return one[:2] == other[:2] and np.array_equal(one.array, other.array, equal_nan=equal_nan)


SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
TENSORS = st.sampled_from([kind for kind in DTYPES if kind != "BYTES"]).flatmap(
    lambda kind: arrays.arrays(DTYPES[kind], SHAPES).map(lambda array: Tensor("t", kind, array))
)


@given(st.lists(TENSORS, max_size=3), st.booleans())
def test_tensors_arrive_as_they_were_sent(tensors: list[Tensor], shared: bool) -> None:
    pair = Pair(shared)
    try:
        arrived = pair.carried(*tensors)
        assert len(arrived) == len(tensors)
        assert all(same(*both) for both in zip(arrived, tensors, strict=True))
    finally:
        pair.close()


@pytest.mark.parametrize("shared", [True, False])
def test_messages_of_any_size_follow_each_other(shared: bool) -> None:
    pair = Pair(shared)
    texts: Array = np.array([b"", "ä".encode(), b"\0" * 70_000], np.object_)
    for size in (1, 10_000, 3, 1_000_000, 8_000_000, 2):
        x = Tensor("x", "FP32", np.arange(size, dtype=np.float32))
        y = Tensor("y", "BYTES", texts)
        assert all(same(*both) for both in zip(pair.carried(x, y), (x, y), strict=True))
    pair.close()


def test_what_a_large_message_used_is_given_back() -> None:
    pair = Pair()
    x = Tensor("x", "UINT8", np.ones(64 * 2**20, np.uint8))

    pair.carried(x)
    assert pair.near._written is not None
    used = os.fstat(pair.near._written.descriptor).st_blocks
    pair.far.trim({"shared": x.array.size})

    assert used * 512 >= x.array.size
    assert os.fstat(pair.near._written.descriptor).st_blocks == 0
    assert same(pair.carried(x)[0], x)
    pair.close()


def test_no_end_can_make_a_region_smaller_under_the_other() -> None:
    region = Region.make("sealed")
    region.write([b"12345678"], 64)

    with pytest.raises(PermissionError):
        os.ftruncate(region.descriptor, 0)
    region.close()


def test_what_is_no_message_is_refused_before_it_is_believed() -> None:
    def message(described: object, inline: int = 0, shared: int = 0) -> bytes:
        text = orjson.dumps({"tensors": described, "shared": shared})
        return frames._PREFIX.pack(len(text), inline) + text + b"\0" * inline

    cases = [
        frames._PREFIX.pack(2**31, 0),
        frames._PREFIX.pack(2, 0) + b"[]",
        frames._PREFIX.pack(2, 0) + b"{}",
        frames._PREFIX.pack(2, 0) + b"nonsense",
        message([["x", "FP32", [2], 4]], 4),
        message([["x", "FP32", [1], 4]], 4) + b"more",
        message([["x", "UINT8", [100_000], 100_000]], 100_000),
        message([["x", "FP32", [2], 8]], 4),
        message([["x", "FP77", [1], 4]], 4),
        message([["x", "FP32", [2**40], 2**42]], 0, 2**42),
        message([["x", "FP32", [1], 4]], 4, 64),
    ]
    for case in cases:
        pair = Pair()
        pair.sockets[0].sendall(case)
        with pytest.raises((ValueError, KeyError, TypeError)):
            pair.far.receive()
        pair.close()


def test_a_message_cut_short_is_the_end() -> None:
    pair = Pair()
    pair.sockets[0].sendall(frames._PREFIX.pack(10, 0) + b"{")
    pair.near.close()

    with pytest.raises(EOFError):
        pair.far.receive()
    pair.far.close()
