"""Pushes built archives to a registry and pins what it holds, by digest, for Helm and for kustomize.

``python -m images.release ghcr.io/example``. ``buildah login`` says who you are. Beside the archives are then
``values.yaml`` (``helm install --values``) and ``component/`` (``components:`` of an overlay of manifests/base).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from images import build, storage

IN_MANIFESTS = ("operator", "router", "serve")
"""Images of containers in manifests and chart."""
STARTED = ("builder", "triton")
"""Those that the operator starts, which is told of them."""


def push(registry: str, output: Path, say: storage.Say, *, plain_http: bool = False) -> dict[str, str]:
    """Push every archive of a folder; the digest under which the registry has each, by the image's name.

    Raises:
        CannotBuild: there is no archive, or the registry refuses one.
    """
    found = build.recorded(output)
    if not found:
        raise storage.CannotBuild(f"{output} holds no {build.RECORD}: build the images first, with `make images`")
    digests = {}
    with storage.opened(say) as opened, tempfile.TemporaryDirectory() as scratch:
        for name, image in sorted(found.items()):
            say(f"{name}: pushing")
            digest = Path(scratch) / name
            identity = opened.run("pull", "--quiet", f"oci-archive:{output / name}.tar").strip()
            where = f"docker://{registry}/{image.reference.rpartition('/')[2]}"
            opened.run("push", "--quiet", f"--digestfile={digest}", f"--tls-verify={not plain_http}", identity, where)
            digests[name] = digest.read_text()
    return digests


def values(registry: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Values of the chart that name the images in a registry by digest."""
    pinned = {name: {"digest": digests[f"penstock-{name}"]} for name in (*IN_MANIFESTS, *STARTED)}
    return {"images": {"registry": registry, **pinned}}


def component(registry: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """A kustomize component that does the same, the images that the operator gives to pods included."""
    names = [f"penstock-{name}" for name in IN_MANIFESTS]
    catalog = "spec.template.spec.containers.[name=catalog].image"
    environment = "spec.template.spec.containers.[name=operator].env.[name=SERVE_IMAGE].value"
    started = [
        {"name": f"{name.upper()}_IMAGE", "value": f"{registry}/penstock-{name}@{digests[f'penstock-{name}']}"}
        for name in STARTED
    ]
    operator = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "penstock-operator"},
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "env": started}]}}},
    }
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "images": [{"name": name, "newName": f"{registry}/{name}", "digest": digests[name]} for name in names],
        "patches": [{"patch": yaml.safe_dump(operator, sort_keys=False)}],
        "replacements": [
            {
                "source": {"kind": "Deployment", "name": "penstock-router", "fieldPath": catalog},
                "targets": [
                    {"select": {"kind": "Deployment", "name": "penstock-operator"}, "fieldPaths": [environment]}
                ],
            }
        ],
    }


def main(arguments: list[str]) -> int:
    """Push and pin; 0 if everything is in the registry."""
    parser = argparse.ArgumentParser(prog="python -m images.release", description="Push images, pin their digests.")
    parser.add_argument("registry", help="where to, such as ghcr.io/example")
    parser.add_argument("--output", type=Path, default=build.OUTPUT, metavar="DIR", help="where the archives are")
    parser.add_argument("--plain-http", action="store_true", help="the registry speaks HTTP")
    given = parser.parse_args(arguments)
    try:
        digests = push(given.registry, given.output, storage.tell, plain_http=given.plain_http)
    except storage.CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, content in (
        (given.output / "values.yaml", values(given.registry, digests)),
        (given.output / "component" / "kustomization.yaml", component(given.registry, digests)),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, width=120))
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
