from __future__ import annotations

from collections.abc import Iterator

import pytest

from operators.api.base import APIObject
from operators.api.crds import crd
from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.runtime import ServingRuntime

FIELDS = frozenset(
    {"additionalProperties", "default", "description", "enum", "exclusiveMaximum", "exclusiveMinimum", "format"}
    | {"items", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum", "pattern"}
    | {"properties", "required", "type"}
)
"""Those of ``JSONSchemaProps`` that we use: an API server refuses a CRD with any that it does not know."""


def fields(schema: object) -> Iterator[str]:
    assert isinstance(schema, dict)
    for name, value in schema.items():
        yield name
        if name == "properties":
            for each in value.values():
                yield from fields(each)
        elif name in ("items", "additionalProperties") and isinstance(value, dict):
            yield from fields(value)


@pytest.mark.parametrize("kind", [Model, Endpoint, ServingRuntime])
def test_a_schema_says_nothing_that_an_api_server_does_not_know(kind: type[APIObject]) -> None:
    [version] = crd(kind)["spec"]["versions"]
    unknown = {name for name in fields(version["schema"]["openAPIV3Schema"]) if name not in FIELDS}
    assert {name for name in unknown if not name.startswith("x-kubernetes-")} == set()
