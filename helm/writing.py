"""Writes what our charts have that is said elsewhere: ``python -m helm.writing``; ``--check`` fails where it is stale.

values.yaml, values.schema.json and the table of each README come from ``values``, the definitions of the chart
penstock-crds from ``operators.api``, and its roles from manifests/crds. manifests/install.yaml begins with the
same; the rest of it is rendered by ``make manifests``.
"""

from __future__ import annotations

import json
import pathlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from helm.values import CHARTS
from operators.api.base import Strict
from operators.cli import crds

HERE = pathlib.Path(__file__).parent
DRAFT = "https://json-schema.org/draft/2020-12/schema"
HEADER = "# Made from helm/values.py by `make charts`; change it there.\n"
INSTALL = HERE.parent / "manifests" / "install.yaml"
BASE = "# What follows is manifests/base, rendered by `make manifests`.\n"
BEGIN, END = "<!-- values: made by `make charts` -->\n", "<!-- end of values -->\n"


def files() -> dict[pathlib.Path, str]:
    """Every file that is made, with its content."""
    made = {}
    for chart, values in CHARTS.items():
        folder = HERE / chart
        made[folder / "values.schema.json"] = schema(values)
        made[folder / "values.yaml"] = HEADER + defaults(values())
        readme = folder / "README.md"
        before, _, rest = readme.read_text().partition(BEGIN)
        table = "\n".join(["| value | meaning | default |", "|---|---|---|", *reference(values())])
        made[readme] = f"{before}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}"
    templates = HERE / "penstock-crds" / "templates"
    for name, text in crds.render().items():
        made[templates / name] = kept(text)
    roles = made[templates / "roles.yaml"] = (HERE.parent / "manifests" / "crds" / "roles.yaml").read_text()
    made[INSTALL] = (
        "---\n".join([*crds.render().values(), roles]) + "---\n" + BASE + INSTALL.read_text().partition(BASE)[2]
    )
    return made


def kept(definition: str) -> str:
    """A definition that outlives its release, since with it would go every object of its kind."""
    found = yaml.safe_load(definition)
    found["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    return crds.HEADER.replace("crds", "charts", 1) + crds.text(found)


def schema(values: type[Strict]) -> str:
    """JSON Schema of the values of one chart."""
    made = values.model_json_schema(by_alias=True)
    return json.dumps({"$schema": DRAFT, **_plain(made)}, indent=2, ensure_ascii=False) + "\n"


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        dropped = {k: v for k, v in node.items() if not (k == "title" and isinstance(v, str))}
        return {k: _sentence(v) if k == "description" and isinstance(v, str) else _plain(v) for k, v in dropped.items()}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _sentence(text: str) -> str:
    return " ".join(text.split())


def defaults(values: Strict, depth: int = 0) -> str:
    """values.yaml: every default under its description."""
    lines = []
    pad = "  " * depth
    for key, description, value in _entries(values):
        lines += textwrap.wrap(description, 116 - len(pad), initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ")
        if isinstance(value, Strict):
            lines += [f"{pad}{key}:", defaults(value, depth + 1).rstrip("\n")]
        else:
            lines.append(f"{pad}{key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def reference(values: Strict, prefix: str = "") -> Iterator[str]:
    """One row of a Markdown table for each value."""
    for key, description, value in _entries(values):
        if isinstance(value, Strict):
            yield from reference(value, f"{prefix}{key}.")
        else:
            yield f"| `{prefix}{key}` | {description} | `{json.dumps(value)}` |"


def _entries(values: Strict) -> Iterator[tuple[str, str, Any]]:
    kind = type(values)
    own = [name for name in kind.model_fields if name in kind.__annotations__]
    for name in [*own, *(name for name in kind.model_fields if name not in own)]:
        field = kind.model_fields[name]
        value = getattr(values, name)
        plain = value if isinstance(value, Strict) else values.model_dump(mode="json", include={name})[name]
        yield field.alias or name, _sentence(field.description or ""), plain


def main(arguments: list[str]) -> int:
    """Write, or with ``--check`` compare."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"charts: {path} is stale; run 'make charts' and commit it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(files()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
