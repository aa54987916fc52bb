"""What is installed in an image, as a CycloneDX bill of materials.

Read from what is there, never from what was asked for: the metadata of Python packages, and Debian's own records,
which a Debian image keeps in ``status`` and a base without dpkg in ``status.d``, one file a package.

Source: https://cyclonedx.org/docs/1.6/json/ and https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import email.parser
import importlib.metadata
import re
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, order=True)
class Component:
    """One installed package: ``purl`` is its address among all package managers, ``licence`` empty if unknown."""

    purl: str
    name: str
    version: str
    licence: str = ""
    spdx: bool = False
    """Whether the licence is an expression of SPDX identifiers."""


def python(site: Path) -> Iterator[Component]:
    """The Python packages of a site-packages folder."""
    for found in importlib.metadata.distributions(path=[str(site)]):
        fields = found.metadata.json
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        expression = fields.get("license_expression")
        licence = str(expression or classified(fields))
        yield Component(f"pkg:pypi/{name}@{quoted(found.version)}", name, found.version, licence, bool(expression))


def classified(fields: Mapping[str, Any]) -> str:
    """The licence that older metadata states: its classifier, else the first line of its text."""
    for classifier in reversed(fields.get("classifier", [])):
        if classifier.startswith("License ::"):
            return str(classifier.rsplit(" :: ", 1)[-1])
    return str(fields.get("license", "")).strip().split("\n")[0][:100]


def debian(dpkg: Path) -> Iterator[Component]:
    """The Debian packages that the records below ``/var/lib/dpkg`` name as installed."""
    records = [dpkg / "status", *sorted(dpkg.glob("status.d/*"))]
    for file in records:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        for paragraph in filter(None, (part.strip() for part in text.split("\n\n"))):
            fields = email.parser.HeaderParser().parsestr(paragraph)
            if not fields.get("Status", "installed").endswith("installed"):
                continue
            name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
            yield Component(
                f"pkg:deb/debian/{name}@{quoted(version)}?arch={architecture}&distro=bookworm", name, version
            )


def cyclonedx(image: str, version: str, found: Sequence[Component]) -> Mapping[str, Any]:
    """The bill of materials, sorted; its serial number follows from its content, so equal images have equal ones."""
    components = sorted(set(found))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, "\n".join([image, version, *(c.purl for c in components)]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": image, "version": version}},
        "components": [entry(component) for component in components],
    }


def entry(component: Component) -> dict[str, Any]:
    """One component as CycloneDX writes it."""
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
    }
    if component.licence and component.spdx:
        made["licenses"] = [{"expression": component.licence}]
    elif component.licence:
        made["licenses"] = [{"license": {"name": component.licence}}]
    return made


def quoted(version: str) -> str:
    """A version as a package URL holds it."""
    return urllib.parse.quote(version, safe=".~-")
