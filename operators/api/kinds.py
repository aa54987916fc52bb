"""The kinds by name, and parsing of an object with errors a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import pydantic

from operators.api.base import API_VERSION, APIObject
from operators.api.crds import crd
from operators.api.endpoint import Endpoint
from operators.api.errors import InvalidObject, Path
from operators.api.model import Model
from operators.api.runtime import ServingRuntime

KINDS: Mapping[str, type[APIObject]] = {"Model": Model, "Endpoint": Endpoint, "ServingRuntime": ServingRuntime}


def parse(data: object) -> APIObject:
    """The typed object in ``data`` (as read from YAML or JSON).

    Raises:
        InvalidObject: names the object, each field, the value given and what is expected.
    """
    if not isinstance(data, dict):
        raise InvalidObject(f"an object must be a mapping with apiVersion, kind, metadata and spec, got {data!r:.80}")
    kind, metadata = data.get("kind"), data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if data.get("apiVersion") != API_VERSION:
        raise InvalidObject(
            f"{kind} {name!r}: apiVersion is {data.get('apiVersion')!r}, expected {API_VERSION!r}", [("apiVersion",)]
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidObject(f"{name!r}: kind is {kind!r}, expected one of {', '.join(KINDS)}", [("kind",)])
    try:
        return KINDS[kind].model_validate(data)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        # What is wrong inside a field makes the field as a whole wrong: say it once, where it is.
        deepest = [e for e in found if not any(_is_within(e["loc"], other["loc"]) for other in found)]
        problems = "; ".join(_problem(KINDS[kind], item) for item in deepest)
        paths = [item["loc"] for item in deepest]
        raise InvalidObject(f"{kind} {name!r}: {problems}" if name else f"{kind}: {problems}", paths) from error


def dotted(path: Path) -> str:
    """A path as people write it: ``spec.variants[0].name``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".") or "object"


def _is_within(outer: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _problem(kind: type[APIObject], item: Mapping[str, Any]) -> str:
    field, given, context = dotted(item["loc"]), item["input"], item.get("ctx", {})
    shown = "" if isinstance(given, dict | list | tuple) else f"; got {given!r:.120}"
    match item["type"]:
        case "extra_forbidden":
            return f"{field}: unknown field; {_instead(kind, item['loc'])}"
        case "missing":
            return f"{field}: required, but not given"
        case "too_short" | "too_long":
            bound = "at least" if item["type"] == "too_short" else "at most"
            length = context.get("min_length", context.get("max_length"))
            return f"{field}: needs {bound} {length} items, has {context.get('actual_length')}"
        case "model_type" | "dict_type":
            return f"{field}: must be a mapping{shown}"
        case "tuple_type" | "list_type":
            return f"{field}: must be a list{shown}"
        case "value_error":
            return f"{field}: {str(item['msg']).removeprefix('Value error, ')}"
        case _:
            message = str(item["msg"])
            return f"{field}: {message[0].lower()}{message[1:]}{shown}"


def _instead(kind: type[APIObject], location: tuple[Any, ...]) -> str:
    """The field that was probably meant, or the fields there are."""
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in location[:-1]:
        schema = schema.get("items", {}) if isinstance(step, int) else schema.get("properties", {}).get(step, {})
    names = sorted(schema.get("properties", {}))
    meant = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"did you mean {meant[0]}?" if meant else f"there are {', '.join(names)}"
