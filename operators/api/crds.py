"""CustomResourceDefinitions made from the typed API: one source for parsing, validation and ``kubectl explain``.

A structural schema is JSON Schema without ``$ref``, ``anyOf`` for optional values, ``const``, ``title`` and
numeric ``exclusiveMinimum``; everything else carries over, CEL rules included.
Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from operators.api.base import GROUP, VERSION, APIObject
from operators.api.endpoint import Endpoint
from operators.api.model import Model
from operators.api.runtime import ServingRuntime

Json = dict[str, Any]


def _column(name: str, path: str, type_: str = "string", priority: int = 0, description: str = "") -> Json:
    column: Json = {"name": name, "type": type_, "jsonPath": path}
    if priority:
        column["priority"] = priority
    if description:
        column["description"] = description
    return column


def _condition(name: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_COLUMNS: Mapping[type[APIObject], list[Json]] = {
    Model: [
        _column("Ready", _condition("Ready", "status")),
        _column("Reason", _condition("Ready", "reason")),
        _column("Variant", ".status.variant"),
        _column("Gain", ".status.gain", description="How many times less than the source the variant takes."),
        _column("Revision", ".status.revision"),
        _column("Replicas", ".status.readyReplicas", "integer", description="Replicas that answer."),
        _column("URL", ".status.url"),
        _AGE,
        _column("Rollout", _condition("RolloutComplete", "reason"), priority=1),
        _column("Message", _condition("Ready", "message"), priority=1),
    ],
    Endpoint: [
        _column("Ready", _condition("Ready", "status")),
        _column("URL", ".status.url"),
        _AGE,
        _column("Message", _condition("Ready", "message"), priority=1),
    ],
    ServingRuntime: [
        _column("Image", ".spec.image"),
        _column("Formats", ".spec.formats"),
        _column("Protocols", ".spec.protocols"),
        _AGE,
    ],
}
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def crd(kind: type[APIObject]) -> Json:
    """The CustomResourceDefinition of ``kind``."""
    singular = kind.__name__.lower()
    schema = kind.model_json_schema(by_alias=True)
    root = _structural(schema, schema.get("$defs", {}))
    root["description"] = kind.__doc__
    root["properties"]["apiVersion"] = {"type": "string"}
    root["properties"]["kind"] = {"type": "string"}
    root["properties"]["metadata"] = {"type": "object"}
    root["properties"]["spec"].setdefault("description", f"What the {kind.__name__} should be.")
    root["required"] = ["spec"]
    subresources: Json = {}
    if "status" in root["properties"]:
        root["properties"]["status"].pop("default", None)
        root["properties"]["status"]["description"] = "What the operator sees and has decided."
        subresources["status"] = {}
    if kind is Model:
        subresources["scale"] = _SCALE
    version: Json = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "additionalPrinterColumns": _COLUMNS[kind],
    }
    if subresources:
        version["subresources"] = subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "penstock"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": list(kind.short_names),
                "categories": ["penstock"],
            },
            "versions": [version],
        },
    }


def _structural(schema: Json, defs: Mapping[str, Json]) -> Json:
    if "$ref" in schema:
        referred = defs[schema["$ref"].rsplit("/", 1)[-1]]
        schema = {**referred, **{k: v for k, v in schema.items() if k != "$ref"}}
    if "anyOf" in schema:
        (kept,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        schema = {**{k: v for k, v in schema.items() if k != "anyOf"}, **_without_description(kept, schema)}
        return _structural(schema, defs)
    if "const" in schema:
        schema = {**{k: v for k, v in schema.items() if k != "const"}, "enum": [schema["const"]]}
    result: Json = {}
    for key, value in schema.items():
        match key:
            case "title" | "$defs" | "$ref":
                continue
            case "additionalProperties":
                if isinstance(value, dict):
                    result[key] = _structural(value, defs)
            case "properties":
                result[key] = {name: _structural(item, defs) for name, item in value.items()}
            case "items":
                result[key] = _structural(value, defs)
            case "prefixItems":
                # A structural schema knows no tuples: the same of each item is all that it can say.
                (result["items"],) = [item for n, item in enumerate(value) if item not in value[:n]]
            case "exclusiveMinimum" | "exclusiveMaximum":
                result[key.replace("exclusiveM", "m")] = value
                result[key] = True
            case "description":
                result[key] = " ".join(value.split())
            case "default":
                default = _without_empty(value)
                if default not in _EMPTY:
                    result[key] = default
            case _:
                result[key] = copy.deepcopy(value)
    return result


def _without_description(option: Json, field: Json) -> Json:
    """A field's own words win over those of its type."""
    return {k: v for k, v in option.items() if not (k == "description" and "description" in field)}


_EMPTY: tuple[Any, ...] = (None, "", [], {})


def _without_empty(value: Any) -> Any:
    """A default without parts that say nothing: a field left out reads the same."""
    if isinstance(value, dict):
        kept = {k: _without_empty(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in _EMPTY}
    if isinstance(value, list):
        return [_without_empty(v) for v in value]
    return value
