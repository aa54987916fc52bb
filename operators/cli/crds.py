"""``penstock crds``: write the CustomResourceDefinitions, or check that what is written is current."""

from __future__ import annotations

import pathlib
from typing import Any

import yaml

from operators.api.crds import crd
from operators.api.kinds import KINDS

HEADER = "# Made from operators/api by `make crds`; change it there.\n"


def render() -> dict[str, str]:
    """File name to YAML text, one file a kind."""
    return {f"{kind.plural}.yaml": HEADER + text(crd(kind)) for kind in KINDS.values()}


def text(definition: dict[str, Any]) -> str:
    """One definition as YAML."""
    return yaml.safe_dump(definition, sort_keys=False, width=110, allow_unicode=True)


def write(folder: pathlib.Path) -> None:
    """Write all definitions into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text)


def stale(folder: pathlib.Path) -> list[str]:
    """Files in ``folder`` that are missing or differ from what the types say now."""
    return [
        name for name, text in render().items() if not (folder / name).exists() or (folder / name).read_text() != text
    ]
