"""Manifests as Kubernetes objects: what ``kubectl kustomize`` and ``helm template`` make of manifests/ and helm/.

``python -m tests.rig.rendering`` writes manifests/install.yaml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from helm import writing
from tests.rig import binaries

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
CHARTS = ROOT / "helm"
NAMESPACE = "penstock-system"

Object = dict[str, Any]


class RenderError(Exception):
    """What the program said."""


def kustomize(kubectl: Path, folder: Path) -> str:
    """YAML of one kustomization."""
    return run(str(kubectl), "kustomize", str(folder))


def install(kubectl: Path) -> str:
    """The kinds and the default installation in one file."""
    kinds, mark, _ = writing.INSTALL.read_text().partition(writing.BASE)
    return kinds + mark + kustomize(kubectl, MANIFESTS / "base")


def template(helm: Path, chart: str, values: Object | None = None, options: Sequence[str] = ()) -> list[Object]:
    """Objects of one chart, those of ``helm test`` included, in order."""
    minor = ".".join(binaries.KUBERNETES_VERSION.split(".")[:2])
    command = [str(helm), "template", chart, str(CHARTS / chart), "--namespace", NAMESPACE, "--kube-version", minor]
    return objects(run(*command, "--values", "-", *options, stdin=json.dumps(values or {})))


def objects(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [found for found in yaml.safe_load_all(text) if found]


def run(*command: str, stdin: str = "") -> str:
    """What a program prints. Raises RenderError."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise RenderError((done.stderr or done.stdout).strip())
    return done.stdout


def main() -> int:
    """Write manifests/install.yaml."""
    kubectl = binaries.locate(os.environ, print).kubectl
    writing.INSTALL.write_text(install(kubectl))
    return 0


if __name__ == "__main__":
    sys.exit(main())
