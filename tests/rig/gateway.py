"""Gateway API as its module publishes it, and Traefik as an implementation of it, run as a process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.rig import binaries, ports

CLASS = "traefik"
CONTROLLER = "traefik.io/gateway-controller"
STOP_DEADLINE_S = 15


def definitions(environ: Mapping[str, str]) -> pathlib.Path:
    """The folder of the standard channel's definitions, fetched with the checksum that go.sum has for them."""
    command = ["go", "mod", "download", "-json", "sigs.k8s.io/gateway-api"]
    quiet = {**environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=binaries.MODULES / "gateway-api", env=quiet, capture_output=True, text=True)
    if done.returncode != 0:
        raise binaries.NoBinaries(f"gateway-api: `{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return pathlib.Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "standard"


def install(kubectl: Callable[..., str], environ: Mapping[str, str]) -> None:
    """Gateway API and the class of Traefik."""
    # Every kind, since Traefik waits for all; without the policy that guards later versions against earlier ones.
    files = [f"--filename={path}" for path in sorted(definitions(environ).glob("*.yaml")) if "_vap_" not in path.name]
    kubectl("apply", "--server-side", *files)
    kubectl("wait", "--for=condition=Established", *(f"crd/{name}.gateway.networking.k8s.io" for name in KINDS))
    spec = {"controllerName": CONTROLLER}
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps({**_API, "kind": "GatewayClass", "metadata": {"name": CLASS}, "spec": spec}),
    )


KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants")
_API = {"apiVersion": "gateway.networking.k8s.io/v1"}


@dataclasses.dataclass(frozen=True)
class Traefik:
    """A running one. Its ports are those of ``host`` in the network it runs in."""

    http_port: int
    grpc_port: int
    log: pathlib.Path

    def gateway(self, name: str, **allowed: Any) -> dict[str, Any]:
        """A Gateway as Penstock needs it: a listener for each kind of route; ``allowed`` is said of both."""
        listeners = [
            {"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": {"kinds": [{"kind": kind}], **allowed}}
            for name, port, kind in (("http", self.http_port, "HTTPRoute"), ("grpc", self.grpc_port, "GRPCRoute"))
        ]
        spec = {"gatewayClassName": CLASS, "listeners": listeners}
        return {**_API, "kind": "Gateway", "metadata": {"name": name}, "spec": spec}


@contextlib.contextmanager
def running(
    url: str,
    token: str,
    ca_file: pathlib.Path,
    namespace: str | None,
    folder: pathlib.Path,
    inside: Callable[..., Sequence[str]] = lambda *command: command,
) -> Iterator[Traefik]:
    """Traefik for the routes of one namespace, or of all, until the block ends.

    ``inside`` puts a command into another network.
    """
    program = shutil.which("traefik", path=str(pathlib.Path(sys.executable).parent))
    assert program, "no traefik beside Python; run `make setup`"
    http_port, grpc_port = ports.free(2)
    token_file, log = folder / "token", folder / "traefik.log"
    token_file.write_text(token)
    token_file.chmod(0o600)
    provider = "--providers.kubernetesgateway"
    command = [
        program,
        f"--entrypoints.http.address=127.0.0.1:{http_port}",
        f"--entrypoints.grpc.address=127.0.0.1:{grpc_port}",
        f"{provider}=true",
        f"{provider}.endpoint={url}",
        f"{provider}.token={token_file}",
        f"{provider}.certauthfilepath={ca_file}",
        *([f"{provider}.namespaces={namespace}"] if namespace else []),
        f"{provider}.statusaddress.ip=127.0.0.1",
        "--providers.providersthrottleduration=100ms",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(inside(*command), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield Traefik(http_port, grpc_port, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
