"""JSON schemas of every kind an API server serves, from its own OpenAPI, as kubeconform reads them.

A field that no schema names is an error, and what the API server accepts in two forms (quantities, ports by number or
by name) is accepted in both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.rig.rendering import Object, run

DRAFT = "http://json-schema.org/draft-04/schema#"
DEFINITIONS = "definitions.json"
LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
KINDS = "x-kubernetes-group-version-kind"
EITHER = {"io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString"}


def write(openapi: Mapping[str, Any], folder: Path) -> None:
    """Write one file a kind into ``folder``, which refers to one file of definitions."""
    definitions = {name: _strict(name, found) for name, found in openapi["definitions"].items()}
    (folder / DEFINITIONS).write_text(json.dumps({"$schema": DRAFT, "definitions": definitions}))
    for name, found in openapi["definitions"].items():
        for kind in found.get(KINDS, []):
            group = "-".join(filter(None, [kind["group"].split(".")[0], kind["version"]]))
            whole = {"$schema": DRAFT, "$ref": f"{DEFINITIONS}#/definitions/{name}"}
            (folder / f"{kind['kind'].lower()}-{group}.json").write_text(json.dumps(whole))


def _strict(name: str, found: Object) -> Object:
    if name in EITHER:
        return {"type": ["string", "number"]}
    made: Object = {}
    for key, value in found.items():
        match key:
            case "properties":
                made[key] = {field: _strict("", schema) for field, schema in value.items()}
            case "items" | "additionalProperties" if isinstance(value, dict):
                made[key] = _strict("", value)
            case "description" | "default" | "format":
                continue
            case _ if not key.startswith("x-kubernetes-"):
                made[key] = value
    open_ended = found.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in found
    if "properties" in found and not open_ended:
        made["additionalProperties"] = False
    return made


def check(kubeconform: Path, folder: Path, objects: list[Object], unknown: tuple[str, ...] = ()) -> None:
    """Hold ``objects`` against the schemas in ``folder``; kinds that are ``unknown`` there are passed over.

    Raises:
        RenderError: what is wrong, by object.
    """
    stream = "\n---\n".join(json.dumps(found) for found in objects)
    skip = ("-skip", ",".join(unknown)) if unknown else ()
    run(str(kubeconform), "-strict", "-schema-location", f"{folder}/{LOCATION}", *skip, "-", stdin=stream)
