"""Where a node keeps its state and which addresses it has.

Everything that a node writes lies below one folder, named after it and readable by root alone, since it holds keys.
Pods and Services have the same addresses in every node, as each has a network of its own; between a node and the
machine there is one link with a subnet of four addresses, and that differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.rig import s3

PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
API_PORT = 6443
S3_PORT = 7070

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


class NodeError(Exception):
    """A node cannot be had; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One node, running or not. ``subnet`` is N in 10.89.N.0/30, the link between machine and node."""

    name: str
    folder: Path
    subnet: int

    @property
    def address(self) -> str:
        """The node's address for pods and for the machine."""
        return f"10.89.{self.subnet}.2"

    @property
    def gateway(self) -> str:
        """The machine's address for the node."""
        return f"10.89.{self.subnet}.1"

    @property
    def link(self) -> str:
        """The machine's end of the link."""
        return f"penstock{self.subnet}"

    @property
    def cgroup(self) -> str:
        """The parent of all pods in every cgroup hierarchy."""
        return f"penstock-{self.name}"

    @property
    def url(self) -> str:
        """The API server, from the machine and from pods."""
        return f"https://{self.address}:{API_PORT}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for use on the machine."""
        return self.folder / "kubeconfig"

    @property
    def buckets(self) -> s3.Server:
        """An S3 server with the bucket ``models``, for the machine and for pods."""
        return s3.Server(self.folder / "buckets", f"{self.address}:{S3_PORT}")

    @property
    def bucket_keys(self) -> Path:
        """What an S3 client needs to reach it, NAME=VALUE a line: for a shell, and for a Secret."""
        return self.folder / "buckets.env"

    @property
    def audit_log(self) -> Path:
        """What was asked of the API server, a JSON object a line, without bodies."""
        return self.folder / "logs" / "audit.log"

    @property
    def network(self) -> Path:
        """The network namespace, as a file that ``nsenter --net`` takes."""
        return self.folder / "network"

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    def log(self, program: str) -> Path:
        return self.folder / "logs" / f"{program}.log"

    def inside(self, *command: str) -> list[str]:
        """The command line that runs ``command`` of the machine in the node's network.

        There 127.0.0.1 answers NodePorts and a Service its own address; what listens there on ``address`` is reached
        from pods and from the machine. Taking the node down ends it.
        """
        return ["nsenter", f"--net={self.network}", "--", *command]


def root(environ: Mapping[str, str]) -> Path:
    """The folder of all nodes."""
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().resolve() / "penstock" / "cluster"


def find(name: str, nodes: Path) -> Node | None:
    """The node of that name, if anything of it is left. Raises ``NodeError`` for a name that cannot be."""
    if not _NAME.fullmatch(name):
        raise NodeError(f"{name!r} is no name for a node: use at most 32 of a-z, 0-9 and -, starting with a letter")
    folder = nodes / name
    if not folder.is_dir():
        return None
    subnet = folder / "subnet"  # the first that is written, and not the last that is removed
    return Node(name, folder, int(subnet.read_text()) if subnet.is_file() else 0)


def of(kubeconfig: Path) -> Node | None:
    """The node whose administrator's kubeconfig that is, or None where it is not of a node of ours."""
    folder = kubeconfig.resolve().parent
    return (
        find(folder.name, folder.parent) if kubeconfig.name == "kubeconfig" and _NAME.fullmatch(folder.name) else None
    )


def claim(name: str, nodes: Path) -> Node:
    """A new node's folder and a subnet that neither another node nor the machine uses."""
    with locked(nodes / ".subnets.lock"):
        taken = {int(path.read_text()) for path in nodes.glob("*/subnet")}
        used = subprocess.run(["ip", "-oneline", "-4", "address"], capture_output=True, text=True, check=True).stdout
        taken |= {int(number) for number in re.findall(r" 10\.89\.(\d+)\.", used)}
        free = next((number for number in range(1, 255) if number not in taken), None)
        if free is None:
            raise NodeError("every subnet of 10.89.0.0/16 is in use: take a node down, or see `ip address`")
        (nodes / name).mkdir()
        (nodes / name / "subnet").write_text(str(free))
        (nodes / name / "logs").mkdir()
    return Node(name, nodes / name, free)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the file goes with the last."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another may have removed what was waited for: then it locks nothing.
            if os.fstat(file.fileno()).st_nlink == 0:
                continue
            try:
                yield
            finally:
                path.unlink()
            return
