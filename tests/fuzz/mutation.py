"""Mutations that know JSON: a value is swapped, doubled, moved or removed, so that the text stays JSON.

Every other time libFuzzer's own mutations of bytes have their turn, which break the text as nothing else can.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import atheris
import orjson

from tests.fuzz import corpus

Mutator = Callable[[bytes, int, int], bytes]

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, -(2**63), 2**63, 2**64 - 1, 0.5, -0.0, 1e308, 5e-324, "", "x", "NaN",
    "FP32", "FP64", "FP16", "BF16", "BOOL", "BYTES", "INT8", "INT64", "UINT8", "UINT64", "\u0000", "\ud7ff", [], {},
    [[]], [1, "a"], [[1, 2], [3]], {"b64": "YQ=="}, [True, 1],
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += _places(inner, (*at, index))
    return found


def _changed(document: Any, chance: random.Random) -> Any:
    *path, last = chance.choice(_places(document)[1:] or [(None,)])
    holder = document
    for step in path:
        holder = holder[step]
    if last is None:
        return chance.choice(_VALUES)
    match chance.randrange(5):
        case 0:
            holder[last] = chance.choice(_VALUES)
        case 1:
            del holder[last]
        case 2 if isinstance(holder, list):
            holder.insert(last, holder[last])
        case 3:
            holder[last] = [holder[last]] * chance.randrange(3)
        case _ if isinstance(holder, dict):
            holder[chance.choice(corpus.KEYS)] = holder[last]
    return document


def _json(text: bytes, chance: random.Random) -> bytes | None:
    try:
        return orjson.dumps(_changed(orjson.loads(text), chance))
    except (ValueError, RecursionError):
        return None


def _with(before: int) -> Mutator:
    """A mutator of JSON after ``before`` bytes of another kind."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            text = _json(data[before:], chance)
            if text is not None and before + len(text) <= max_size:
                return data[:before].ljust(before, b"\0") + text
        return bytes(atheris.Mutate(data, max_size))

    return mutate


def _v2_binary(data: bytes, max_size: int, seed: int) -> bytes:
    """The JSON part changes and its length in front with it."""
    chance = random.Random(seed)
    length = int.from_bytes(data[:2], "little")
    if length and chance.random() < 0.5:
        text = _json(data[2 : 2 + length], chance)
        if text is not None and len(text) < 2**16:
            result = struct.pack("<H", len(text)) + text + data[2 + length :]
            if len(result) <= max_size:
                return result
    return bytes(atheris.Mutate(data, max_size))


MUTATORS: dict[str, Mutator] = {
    "v2_json": _with(0),
    "v1_json": _with(1),
    "generate_json": _with(1),
    "v2_binary": _v2_binary,
    "model_settings": _with(0),
    "identity_model": _with(0),
}
