"""The kinds by name, and parsing of an object with errors a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from operators.api.base import API_VERSION, APIObject
from operators.api.endpoint import Endpoint
from operators.api.errors import InvalidObject
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
        raise InvalidObject(f"{kind} {name!r}: apiVersion is {data.get('apiVersion')!r}, expected {API_VERSION!r}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidObject(f"{name!r}: kind is {kind!r}, expected one of {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(data)
    except pydantic.ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors(include_url=False))
        raise InvalidObject(f"{kind} {name!r}: {problems}") from error


def _problem(item: Mapping[str, Any]) -> str:
    path = ""
    for step in item["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    field, given = path.lstrip(".") or "object", item["input"]
    if item["type"] == "extra_forbidden":
        return f"{field}: unknown field; remove it, or see `kubectl explain` for the fields there are"
    if item["type"] == "missing":
        return f"{field}: required, but not given"
    message = str(item["msg"]).removeprefix("Value error, ")
    shown = "" if isinstance(given, dict | list | tuple) or item["type"] == "value_error" else f"; got {given!r:.120}"
    return f"{field}: {message[0].lower()}{message[1:]}{shown}"
