"""The digits Model of a namespace, as its owner sees it: applied from the example's files, by ``penstock``."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from tests.rig.cluster import Cluster
from tests.rig.installation import STORE
from tests.rig.load import FIRST, NEXT
from tests.rig.s3 import Server

FILES = {"first": FIRST, "next": NEXT, "broken": NEXT.parent / "broken" / "model.yaml"}


class Digits:
    """``changes`` are put into the spec of the example, such as replicas and resources."""

    def __init__(
        self, cluster: Cluster, namespace: str, server: Server, folder: pathlib.Path, changes: Mapping[str, Any]
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._environment = {**os.environ, **server.environment}
        self._folder = folder
        self._changes = changes
        # Pods fetch with the keys of their namespace's Secret, the person at the terminal uploads with their own.
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "penstock-storage"}}
        cluster.apply({**secret, "stringData": dict(server.environment)}, namespace=namespace)

    def penstock(self, *arguments: str) -> str:
        """What ``penstock`` prints, asked to act in this namespace of the cluster."""
        where = (f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.namespace}")
        command = [sys.executable, "-m", "operators.cli.main", *arguments, *where]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"penstock {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, revision: str) -> str:
        """Wish for the ``first``, ``next`` or ``broken`` revision; what ``penstock apply`` prints."""
        document = yaml.safe_load(FILES[revision].read_text())
        source = document["spec"]["source"]
        source["uri"] = str((FILES[revision].parent / source["uri"]).resolve())
        document["spec"] |= self._changes
        file = self._folder / f"{revision}.yaml"
        file.write_text(yaml.safe_dump(document))
        return self.penstock("apply", "-f", str(file), "--store", STORE)

    def object(self) -> dict[str, Any]:
        return self.cluster.get("model", "digits", namespace=self.namespace)

    def settled(self) -> bool:
        """Whether what was wished for last serves, alone."""
        found = self.object()
        status = found.get("status", {})
        true = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        current: bool = status.get("observedGeneration") == found["metadata"]["generation"]
        return current and {"Ready", "RolloutComplete"} <= true

    def serving(self) -> str:
        """Wait until what was wished for last serves, alone; the name of its revision."""
        self.cluster.until("the revision wished for serves", self.settled, 180)
        revision: str = self.object()["status"]["revision"]
        return revision

    def pods(self) -> list[dict[str, Any]]:
        """The Model's pods that are not being deleted."""
        listed = self.cluster.kubectl("-n", self.namespace, "get", "pods", "-l", "penstock.dev/model=digits", "-o=json")
        return [pod for pod in json.loads(listed)["items"] if "deletionTimestamp" not in pod["metadata"]]
