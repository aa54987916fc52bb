"""KServe as its module publishes it: its kinds, its admission, and its controller as a process beside an API server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import yaml

from tests.rig import binaries, certificates, ports

CRDS = ("inferenceservices", "servingruntimes", "clusterservingruntimes", "trainedmodels", "inferencegraphs")
START_DEADLINE_S, STOP_DEADLINE_S = 60, 15
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
    return binaries.sources("kserve", "github.com/kserve/kserve", environ)


def install(kubectl: Callable[..., str], environ: Mapping[str, str]) -> None:
    """KServe's kinds."""
    folder = module(environ) / "config" / "crd" / "full"
    files = [*folder.glob("serving.kserve.io_*.yaml"), *folder.glob("clusterstoragecontainer/serving.kserve.io_*.yaml")]
    kubectl("apply", "--server-side", *(f"--filename={path}" for path in sorted(files)))
    for name in CRDS:
        # Waiting for a condition fails over a definition so new that it has none yet.
        kubectl("wait", f"--for=jsonpath={{.status.acceptedNames.plural}}={name}", f"crd/{name}.serving.kserve.io")
        kubectl("wait", "--for=condition=Established", f"crd/{name}.serving.kserve.io")


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
def running(
    kubectl: Callable[..., str], kubeconfig: pathlib.Path, folder: pathlib.Path, admits: bool = True
) -> Iterator[pathlib.Path]:
    """The controller until the block ends; gives its log. InferenceServices must be deleted before: it finalizes them.

    Where it ``admits``, the API server asks it at 127.0.0.1 about each InferenceService and its pods, as in a cluster
    where KServe is installed; elsewhere nothing injects its storage initializer.

    Raises:
        NoBinaries: it is not there and cannot be built.
    """
    program = binaries.find(binaries.KSERVE, os.environ, print)
    # It serves webhooks whether anybody calls them or not.
    authority = certificates.Authority()
    serving = folder / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True)
    authority.issue(serving)
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
        with _asked(kubectl, webhooks, authority.pem, process) if admits else contextlib.nullcontext():
            yield log
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _asked(
    kubectl: Callable[..., str], port: int, authority: bytes, process: subprocess.Popen[bytes]
) -> Iterator[None]:
    """The API server asks the process at ``port``, by KServe's own rules."""
    end = time.monotonic() + START_DEADLINE_S
    pause = threading.Event()
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        pause.wait(0.1)
    documents = yaml.safe_load_all((module(os.environ) / "config" / "webhook" / "manifests.yaml").read_text())
    configurations = [document for document in documents if document]
    for configuration in configurations:
        for webhook in configuration["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            bundle = base64.b64encode(authority).decode()
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}", "caBundle": bundle}
    stream = yaml.safe_dump_all(configurations)
    kubectl("apply", "--server-side", "--filename=-", stdin=stream)
    try:
        yield
    finally:
        kubectl("delete", "--filename=-", stdin=stream)
