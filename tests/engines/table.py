"""What was found of each engine, kept as JSON and shown as the table in README.

``python -m tests.engines.table`` asks every engine anew and writes both.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serving.conformance import checks
from serving.conformance.target import Target
from tests.engines import started
from tests.rig.model_server import ROOT

FILE = Path(__file__).parent / "supported.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- engines: begin -->\n", "<!-- engines: end -->\n"

Supported = Mapping[str, Mapping[str, str]]
"""What came of each check, by engine and check: ``yes``, ``n/a``, or why not."""


def asked(target: Target) -> dict[str, str]:
    """What comes of each check, as it is kept."""
    return {one.check.name: one.state.value for one in checks.findings(target)}


def known() -> Supported:
    """What is kept."""
    found: Supported = json.loads(FILE.read_text())
    return found


def table(found: Supported) -> str:
    """What some engine lacks, line by line, below what all can do."""
    says = {one.name: one.says for one in checks.all_checks()}
    differing = [name for name in says if any(of[name] == "no" for of in found.values())]
    engines = list(found)
    rows = [
        "| it | " + " | ".join(f"`{engine}`" for engine in engines) + " |",
        "|---" * (1 + len(engines)) + "|",
        f"| all {len(says) - len(differing)} other checks | " + " | ".join("yes" for _ in engines) + " |",
        *(
            f"| {says[name].replace('|', '/')} | " + " | ".join(found[engine][name] for engine in engines) + " |"
            for name in differing
        ),
    ]
    return "\n".join([*rows, ""])


def main() -> None:
    """Asks the engines, those named or all, and writes what was found."""
    found = dict(known()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in sys.argv[1:] or started.ENGINES:
            model = started.artifact(engine, Path(folder) / engine)
            with started.running(engine, model) as (_, place), contextlib.closing(Target(place)) as target:
                found[engine] = asked(target)
    found = {engine: found[engine] for engine in started.ENGINES}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    head, rest = README.read_text().split(BEGIN)
    README.write_text(head + BEGIN + table(found) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
