"""Programs that come from the machine's distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.rig.node.layout import NodeError

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
PROGRAMS = {
    "busybox": "busybox-static",
    "catatonit": "catatonit",
    "containerd": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "runc": "runc",
}


def missing() -> list[str]:
    """Debian's names of the packages that are not there."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [package for program, package in PROGRAMS.items() if shutil.which(program, path=search) is None]
    return absent if cni_folder() else [*absent, "containernetworking-plugins"]


def cni_folder() -> Path | None:
    """Where the network plugins are."""
    return next((folder for folder in CNI_FOLDERS if (folder / "ptp").is_file()), None)


def install(say: Callable[[str], None]) -> None:
    """Install what is missing. Raises ``NodeError`` naming it where that is not Debian or Ubuntu, or fails."""
    if not (absent := missing()):
        return
    names = " ".join(absent)
    if shutil.which("apt-get") is None:
        raise NodeError(f"install what Debian calls {names}, then try again")
    say(f"installing {names} with apt-get")
    # A package that starts a service of its own would be more than was asked for.
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *absent]
    # Lists of packages may be missing or stale: fetched only where that is so.
    for step in (command, ["apt-get", "update", "--quiet"], command):
        done = subprocess.run(step, env=environ, capture_output=True, text=True)
        if done.returncode == 0 and step is command:
            return
    raise NodeError(f"`{' '.join(command)}` failed:\n{(done.stderr.strip() or done.stdout.strip())[-500:]}")
