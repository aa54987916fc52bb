"""``python -m tests.rig.node up|images|status|down [--name NAME]``: a throw-away Kubernetes on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from images.storage import CannotBuild
from tests.rig import binaries, installation
from tests.rig.node import isolation, layout, lifecycle
from tests.rig.node.layout import Node, NodeError


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rig.node", description="A throw-away Kubernetes node.")
    parser.add_argument("action", choices=("up", "images", "status", "down"))
    parser.add_argument("--name", default="penstock", help="several can run at once (penstock)")
    asked = parser.parse_args(arguments)
    try:
        if asked.action == "up":
            print(_how_to_use(lifecycle.up(asked.name, environ, _say)))
        elif asked.action == "images":
            print(_images(layout.find(asked.name, layout.root(environ)), asked.name, environ))
        elif asked.action == "down":
            there = lifecycle.down(asked.name, environ)
            print(f"node {asked.name} is gone" if there else f"there is no node {asked.name}")
        else:
            return _status(layout.find(asked.name, layout.root(environ)), asked.name)
    except (NodeError, binaries.NoBinaries, CannotBuild) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _status(node: Node | None, name: str) -> int:
    absent = sorted(lifecycle.EXPECTED - isolation.running(node)) if node else []
    if node is None:
        print(f"there is no node {name}")
    elif absent:
        print(f"node {name} is broken, without {', '.join(absent)}: `up` starts it anew, `down` removes it")
    else:
        print(_how_to_use(node))
    return 0 if node and not absent else 1


def _images(node: Node | None, name: str, environ: Mapping[str, str]) -> str:
    """Build Penstock's images and bring them to the node; how it is installed with them."""
    if node is None:
        raise NodeError(f"there is no node {name}; `make cluster NAME={name}` starts it")
    installation.load(node, _say)
    helm = shutil.which("helm") or binaries.find(binaries.HELM, environ, _say)
    return f"""\

the images are on node {node.name}; install Penstock with

  {helm} install penstock-crds helm/penstock-crds
  {helm} install penstock helm/penstock --namespace penstock-system --create-namespace \\
    --set router.service.type=NodePort,router.service.nodePorts.http=30080,router.service.nodePorts.grpc=30900"""


def _how_to_use(node: Node) -> str:
    name = "" if node.name == "penstock" else f" NAME={node.name}"
    kubectl = "" if shutil.which("kubectl") else f"\n  export PATH=$PATH:{_kubectl().parent}"
    return f"""\

node {node.name} is up: Kubernetes {binaries.KUBERNETES_VERSION}

  export KUBECONFIG={node.kubeconfig}{kubectl}

  a NodePort answers on http://{node.address}:PORT; logs are in {node.folder / "logs"}
  in its own network, on 127.0.0.1 too: nsenter --net={node.network} curl http://127.0.0.1:PORT
  a bucket s3://models: keys for your shell and for a Secret are in {node.bucket_keys}
  Penstock's images, built and brought there: make cluster-images{name}
  take it down: make cluster-down{name}"""


def _kubectl() -> Path:
    target = next(target for target in binaries.TARGETS if target.name == "kubectl")
    return binaries.find(target, os.environ, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
