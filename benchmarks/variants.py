"""What do the variants of the examples gain, and what do they lose?

Each example is built as a user would, ``penstock build``, into an empty folder, so that the time is that of a first
build with PyTorch already installed. Kept is what the builder reports of each variant: size, quality with its bound,
processor time by batch size, whether it may serve and why. ``pose-640`` is no example but the pose example's network in
the size of YOLOv8n-pose (``pose_network``): without training nothing can be lost, so that its variants only show what
they cost.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import origin, pose_network

_EXAMPLES = Path(__file__).parents[1] / "examples"
_KEPT = ("name", "accepted", "reason", "bytes", "quality", "cpuMs", "wallMs", "curve", "gain", "memoryBytes", "loadS")


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument(
        "--examples", default="digits", help="names, with commas between, and pose-640 (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Build, write ``variants.json``; examples that are not asked for keep their rows."""
    file = options.results / "variants.json"
    before: dict[str, Any] = json.loads(file.read_text())["examples"] if file.exists() else {}
    found = {name: _built(name) for name in options.examples.split(",")}
    results = {
        "question": (__doc__ or "").splitlines()[0],
        "examples": dict(sorted({**before, **found}.items())),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    for name, example in found.items():
        print(f"{name}: {example['seconds']} s\n{table(example)}")
    return 0


def _built(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        is_made = name == pose_network.NAME
        manifest = pose_network.written(Path(folder)) if is_made else _EXAMPLES / name / "model.yaml"
        store = f"{folder}/store"
        began = time.monotonic()
        command = [sys.executable, "-m", "operators.cli.main", "build", str(manifest), "--store", store, "-o", "json"]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "origin": origin.described(),
        "seconds": round(time.monotonic() - began),
        "machine": report["machine"],
        "tools": report["tools"],
        "evaluation": {key: value for key, value in (report["evaluation"] or {}).items() if key != "dataset"},
        "selected": report["selected"],
        "variants": [{key: one[key] for key in _KEPT if key in one} for one in report["variants"]],
    }


def table(example: dict[str, Any]) -> str:
    """The variants as a table in Markdown."""
    lines = [
        "| variant | size | quality | lost at most | CPU ms, 1 and 32 | gain | may serve |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in example["variants"]:
        quality, cpu = one.get("quality"), list(one.get("cpuMs", {}).values())
        cells = (
            f"**{one['name']}**" if one["name"] == example["selected"] else one["name"],
            f"{one['bytes'] / 1024:.0f} KiB" if "bytes" in one else "",
            f"{quality['value']:.4f}" if quality else "",
            f"{quality['dropUpperBound']:.4f}" if quality else "",
            f"{cpu[0]:.2f}, {cpu[-1]:.2f}" if cpu else "",
            f"{one['gain']:.1f}×" if "gain" in one else "",
            "yes" if one["accepted"] else f"no: {one['reason']}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
