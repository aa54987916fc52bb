"""KServe as its module publishes it: its kinds, and its controller as a process beside an API server.

Its admission webhooks are left out, so nothing injects its storage initializer into pods.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping

from tests.rig import binaries, certificates, ports

CRDS = ("inferenceservices", "servingruntimes", "clusterservingruntimes", "trainedmodels", "inferencegraphs")
STOP_DEADLINE_S = 15
_QUANTITIES = {"image": "none", "memoryRequest": "1Mi", "memoryLimit": "1Mi", "cpuRequest": "1m", "cpuLimit": "1m"}
_SETTINGS = {
    "deploy": {"defaultDeploymentMode": "Standard"},
    "ingress": {"ingressGateway": "none/none", "ingressDomain": "example.com", "ingressClassName": "none"},
    "storageInitializer": _QUANTITIES,
    "agent": _QUANTITIES,
    "logger": _QUANTITIES,
    "batcher": _QUANTITIES,
}


def module(environ: Mapping[str, str]) -> pathlib.Path:
    """The folder of KServe's source, fetched with the checksum that go.sum has for it."""
    command = ["go", "mod", "download", "-json", "github.com/kserve/kserve"]
    quiet = {**environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=binaries.MODULES / "kserve", env=quiet, capture_output=True, text=True)
    if done.returncode != 0:
        raise binaries.NoBinaries(f"kserve: `{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return pathlib.Path(json.loads(done.stdout)["Dir"])


def install(kubectl: Callable[..., str], environ: Mapping[str, str]) -> None:
    """KServe's kinds."""
    folder = module(environ) / "config" / "crd" / "full"
    files = [*folder.glob("serving.kserve.io_*.yaml"), *folder.glob("clusterstoragecontainer/serving.kserve.io_*.yaml")]
    kubectl("apply", "--server-side", *(f"--filename={path}" for path in sorted(files)))
    definitions = [f"crd/{name}.serving.kserve.io" for name in CRDS]
    # Waiting for a condition fails over a definition so new that it has none yet.
    kubectl("wait", "--for=jsonpath={.status.acceptedNames.plural}", *definitions)
    kubectl("wait", "--for=condition=Established", *definitions)


def configure(kubectl: Callable[..., str]) -> None:
    """What its controller wants to read before it does anything."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kserve"}}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {name: json.dumps(value) for name, value in _SETTINGS.items()},
    }
    for each in (namespace, config_map):
        kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(each))


@contextlib.contextmanager
def running(kubeconfig: pathlib.Path, folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The controller until the block ends; gives its log. InferenceServices must be deleted before: it finalizes them.

    Raises:
        NoBinaries: it is not there and cannot be built.
    """
    program = binaries.find(binaries.KSERVE, os.environ, print)
    # It serves webhooks whether anybody calls them or not.
    serving = folder / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True)
    certificates.Authority().issue(serving)
    webhooks, metrics, probes = ports.free(3)
    log = folder / "kserve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--kubeconfig={kubeconfig}",
                f"--webhook-port={webhooks}",
                f"--metrics-addr=127.0.0.1:{metrics}",
                f"--health-probe-addr=127.0.0.1:{probes}",
                "--leader-elect=false",
            ],
            env={**os.environ, "TMPDIR": str(folder), "POD_NAMESPACE": "kserve"},
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
