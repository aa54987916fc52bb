"""Why settings cannot be taken, in words for whoever wrote them: msgspec says where, the types say what there may be.

Imported when something is refused, never before.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import msgspec.inspect

from serving.tensors import brief

_TEXT = re.compile(r"(?P<what>.*?)(?: - at `(?P<where>\$[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]+|\.\.\.)\]")


def said(error: msgspec.ValidationError, document: Any, kind: type, written: Mapping[str, str]) -> str:
    """What in ``document`` is not as in a ``kind``, and where; ``written`` says how a pattern's text is written."""
    found = _TEXT.fullmatch(str(error))
    what, where = (found["what"], found["where"] or "$") if found else (str(error), "$")
    at = f" at {where}" if where != "$" else ""
    unknown = _UNKNOWN.fullmatch(what)
    for node in _at(msgspec.inspect.type_info(kind), where):
        if isinstance(node, msgspec.inspect.StructType) and unknown:
            names = sorted(field.encode_name for field in node.fields)
            meant = difflib.get_close_matches(unknown[1], names, n=1)
            guess = f"did you mean {meant[0]}? " if meant else ""
            return f"unknown key '{unknown[1]}'{at}; {guess}known: {', '.join(names)}"
        if isinstance(node, msgspec.inspect.LiteralType):
            return f"expected one of {', '.join(map(str, node.values))}{at}, got {_given(document, where)}"
        if isinstance(node, msgspec.inspect.StrType) and (how := written.get(node.pattern or "")):
            return f"expected {how}{at}, got {_given(document, where)}"
    return str(error)


def _at(node: Any, where: str) -> list[Any]:
    """What may stand at a path of msgspec's: ``$.limits.timeout``, ``$.warmUp[0]``; empty where nothing is known."""
    nodes = _choices(node)
    for step in _STEP.finditer(where):
        nodes = [choice for node in nodes for below in _below(node, step[1]) for choice in _choices(below)]
    return nodes


def _below(node: Any, name: str | None) -> list[Any]:
    if isinstance(node, msgspec.inspect.StructType):
        return [field.type for field in node.fields if field.encode_name == name]
    if name is None:
        return [getattr(node, key) for key in ("item_type", "value_type") if hasattr(node, key)]
    return []


def _choices(node: Any) -> list[Any]:
    types = node.types if isinstance(node, msgspec.inspect.UnionType) else [node]
    return [choice for choice in types if not isinstance(choice, msgspec.inspect.NoneType)]


def _given(document: Any, where: str) -> str:
    for step in _STEP.finditer(where):
        if step[2] == "...":  # msgspec names no key of a mapping
            return "something else"
        document = document[step[1] if step[1] is not None else int(step[2])]
    return brief(document)
