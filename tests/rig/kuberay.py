"""KubeRay as its module publishes it: its kinds, and its operator as a process beside an API server."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping

from tests.rig import binaries, ports

CRDS = ("rayclusters", "rayservices", "rayjobs", "raycronjobs")
STOP_DEADLINE_S = 15


def install(kubectl: Callable[..., str], environ: Mapping[str, str]) -> None:
    """KubeRay's kinds, fetched with the checksum that go.sum has for them."""
    folder = binaries.sources("kuberay", "github.com/ray-project/kuberay/ray-operator", environ) / "config/crd/bases"
    kubectl("apply", "--server-side", *(f"--filename={folder}/ray.io_{name}.yaml" for name in CRDS))
    for name in CRDS:
        # Waiting for a condition fails over a definition so new that it has none yet.
        kubectl("wait", f"--for=jsonpath={{.status.acceptedNames.plural}}={name}", f"crd/{name}.ray.io")
        kubectl("wait", "--for=condition=Established", f"crd/{name}.ray.io")


@contextlib.contextmanager
def running(kubeconfig: pathlib.Path, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """KubeRay's operator until the block ends; gives its log.

    Raises:
        NoBinaries: it is not there and cannot be built.
    """
    program = binaries.find(binaries.KUBERAY, os.environ, print)
    metrics, probes = ports.free(2)
    log = folder / "kuberay.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--kubeconfig={kubeconfig}",
                "--enable-leader-election=false",
                f"--metrics-addr=127.0.0.1:{metrics}",
                f"--health-probe-bind-address=127.0.0.1:{probes}",
                "--use-kubernetes-proxy",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
