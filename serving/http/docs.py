"""The OpenAPI document as a page for people: plain HTML that needs no script and no other host."""

from __future__ import annotations

import html
import json
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; text-transform: capitalize }
details { border: 1px solid #ddd; border-radius: 4px; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer } code, pre { font-size: 14px } pre { background: #f6f6f6; padding: .6rem; overflow: auto }
b { display: inline-block; min-width: 3.2rem } table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0 }
"""


def page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info, schemas = document["info"], document["components"]["schemas"]
    tags: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tags.setdefault(operation["tags"][0], []).append(_operation(method.upper(), path, operation))
    parts = [f"<h2>{html.escape(tag)}</h2>{''.join(operations)}" for tag, operations in tags.items()]
    parts.append("<h2>schemas</h2>")
    parts += [_schema(name, schema) for name, schema in schemas.items()]
    title = html.escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p>{html.escape(info["description"])}</p><p>For programs: <a href="/openapi.json">'
        f"/openapi.json</a></p>{''.join(parts)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (parameter["name"], f"in the {parameter['in']}: {parameter['description']}")
        for parameter in operation["parameters"]
    ]
    rows += [("body", _forms(operation["requestBody"]))] if "requestBody" in operation else []
    rows += [
        (code, f"{answer['description']}: {_forms(answer)}" if "content" in answer else answer["description"])
        for code, answer in operation["responses"].items()
    ]
    table = "".join(f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(text)}" for name, text in rows)
    return (
        f"<details><summary><b>{method}</b> <code>{html.escape(path)}</code> – {html.escape(operation['summary'])}"
        f"</summary><table>{table}</table></details>"
    )


def _forms(holder: dict[str, Any]) -> str:
    return ", or ".join(
        f"{kind} ({form['schema']['$ref'].rpartition('/')[2]})" if "$ref" in form["schema"] else kind
        for kind, form in holder["content"].items()
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    name, text = html.escape(name), html.escape(json.dumps(schema, indent=2))
    return f"<details><summary><code>{name}</code></summary><pre>{text}</pre></details>"
