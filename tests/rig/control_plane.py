"""A control plane of its own on loopback: etcd, kube-apiserver and kube-controller-manager, and no kubelet.

Two identities: ``admin`` in system:masters, and ``operator``, which may do only what a test grants it by
RBAC. Everything lives in one folder and ends with the context, or with the process that entered it. Ready 5 s
after the start on two cores; 390 MB of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.rig import ports
from tests.rig.binaries import Binaries

START_DEADLINE_S = 90
STOP_DEADLINE_S = 15
CONTROLLERS = (
    "deployment-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "serviceaccount-controller",
)


class NotReady(Exception):
    """A part of the control plane ended or did not become ready; the message ends with its last words."""


@dataclasses.dataclass(frozen=True)
class ControlPlane:
    """A running one. ``tokens`` by identity."""

    url: str
    ca_file: Path
    tokens: dict[str, str]
    folder: Path
    kubectl_path: Path

    def kubeconfig(self, identity: str = "admin") -> Path:
        """A kubeconfig file that speaks to the API server itself."""
        path = self.folder / f"{identity}.kubeconfig"
        if not path.is_file():
            write_kubeconfig(path, self.url, self.tokens[identity], self.ca_file)
        return path

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What ``kubectl`` prints as ``admin``; a failure raises with what it says on stderr."""
        done = subprocess.run(
            [str(self.kubectl_path), f"--kubeconfig={self.kubeconfig()}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise subprocess.SubprocessError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def write_kubeconfig(path: Path, url: str, token: str, ca_file: Path | None = None) -> None:
    """One context with one token; ``ca_file`` only for https."""
    authority = f"    certificate-authority: {ca_file}\n" if ca_file else ""
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: rig\n"
        "contexts:\n- name: rig\n  context: {cluster: rig, user: rig}\n"
        f"clusters:\n- name: rig\n  cluster:\n    server: {url}\n{authority}"
        f"users:\n- name: rig\n  user: {{token: {token}}}\n"
    )
    path.chmod(0o600)


def write_service_account_key(path: Path) -> None:
    """What the API server signs the tokens of service accounts with."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*form))


@contextlib.contextmanager
def running(binaries: Binaries, folder: Path, controllers: Sequence[str] = CONTROLLERS) -> Iterator[ControlPlane]:
    """Start everything, wait until it works, and stop it in reverse order; ``controllers`` has the service accounts'.

    Raises:
        NotReady: something did not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        etcd_url = _start_etcd(stack, binaries, folder)
        plane = _start_apiserver(stack, binaries, folder, etcd_url)
        _start_controller_manager(stack, binaries, plane, controllers)
        yield plane


def _start_etcd(stack: contextlib.ExitStack, binaries: Binaries, folder: Path) -> str:
    client, peer = (f"http://127.0.0.1:{port}" for port in ports.free(2))
    process = _start(
        stack,
        folder / "etcd.log",
        binaries.etcd,
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    )
    _wait(process, folder / "etcd.log", lambda: answers(f"{client}/health"))
    return client


def _start_apiserver(stack: contextlib.ExitStack, binaries: Binaries, folder: Path, etcd_url: str) -> ControlPlane:
    (port,) = ports.free(1)
    certificates = folder / "certificates"
    # The API server signs for itself; the file it writes holds the authority too.
    plane = ControlPlane(
        f"https://127.0.0.1:{port}",
        certificates / "apiserver.crt",
        {"admin": secrets.token_hex(16), "operator": secrets.token_hex(16)},
        folder,
        binaries.kubectl,
    )
    token_file = folder / "tokens.csv"
    token_file.write_text(
        f"{plane.tokens['admin']},admin,admin,system:masters\n{plane.tokens['operator']},operator,operator\n"
    )
    token_file.chmod(0o600)
    key = folder / "service-account.key"
    write_service_account_key(key)
    process = _start(
        stack,
        folder / "kube-apiserver.log",
        binaries.kube_apiserver,
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={certificates}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={token_file}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--allow-privileged=true",
        "--profiling=false",
        "--v=1",
    )
    _wait(
        process,
        folder / "kube-apiserver.log",
        lambda: plane.ca_file.is_file() and answers(f"{plane.url}/readyz", plane.tokens["admin"], plane.ca_file),
    )
    return plane


def _start_controller_manager(
    stack: contextlib.ExitStack, binaries: Binaries, plane: ControlPlane, controllers: Sequence[str]
) -> None:
    log = plane.folder / "kube-controller-manager.log"
    process = _start(
        stack,
        log,
        binaries.kube_controller_manager,
        f"--kubeconfig={plane.kubeconfig()}",
        f"--controllers={','.join(controllers)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--v=1",
    )
    # It listens nowhere: its first work, the namespace's service account, is its sign of life.
    account = f"{plane.url}/api/v1/namespaces/default/serviceaccounts/default"
    _wait(process, log, lambda: answers(account, plane.tokens["admin"], plane.ca_file))


def _start(stack: contextlib.ExitStack, log: Path, *command: object) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_parent() -> None:
        if libc is not None:
            pr_set_pdeathsig = 1
            libc.prctl(pr_set_pdeathsig, signal.SIGKILL)

    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt at the keyboard is ours to handle, in order
            preexec_fn=die_with_parent,
        )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    pause = threading.Event()
    while not is_ready():
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            what = f"not ready after {START_DEADLINE_S} s" if ended is None else f"ended with code {ended}"
            words = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise NotReady(f"{log.stem}: {what}; the end of {log}:\n{words}")
        pause.wait(0.1)


def answers(url: str, token: str = "", ca_file: Path | None = None) -> bool:
    """Whether a GET of ``url`` gives 200."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
