"""``python -m tests.rig.node up|down|status [--name NAME]``: a throw-away Kubernetes on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from tests.rig import binaries
from tests.rig.node import isolation, layout, lifecycle
from tests.rig.node.layout import Node, NodeError


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rig.node", description="A throw-away Kubernetes node.")
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument("--name", default="penstock", help="several can run at once (penstock)")
    asked = parser.parse_args(arguments)
    try:
        if asked.action == "up":
            print(_how_to_use(lifecycle.up(asked.name, environ, _say)))
        elif asked.action == "down":
            there = lifecycle.down(asked.name, environ)
            print(f"node {asked.name} is gone" if there else f"there is no node {asked.name}")
        else:
            return _status(layout.find(asked.name, layout.root(environ)), asked.name)
    except (NodeError, binaries.NoBinaries) as error:
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


def _how_to_use(node: Node) -> str:
    name = "" if node.name == "penstock" else f" NAME={node.name}"
    return f"""\

node {node.name} is up: Kubernetes {binaries.KUBERNETES_VERSION}

  export KUBECONFIG={node.kubeconfig}

  a NodePort answers on http://{node.address}:PORT; logs are in {node.folder / "logs"}
  in its own network, on 127.0.0.1 too: nsenter --net={node.network} curl http://127.0.0.1:PORT
  take it down: make cluster-down{name}"""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
