"""buildah and where it keeps what it made: one folder for every checkout, with one build in it at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository, which is the context of every build."""

Say = Callable[[str], None]


def tell(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


class CannotBuild(Exception):
    """An image cannot be built or pushed; the message says which, why, and what to install or read."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """``folder`` holds buildah's storage, and is for temporary files that may be large."""

    folder: Path

    def run(self, *arguments: str) -> str:
        """What ``buildah`` prints.

        Raises:
            CannotBuild: with the end of what it said.
        """
        options = (f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}", "--storage-driver=overlay")
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.folder)}
        done = subprocess.run(
            ("buildah", *options, *arguments), env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise CannotBuild(f"`buildah {' '.join(arguments)}` ended with {done.returncode}:\n{said[-4000:]}")
        return done.stdout


@contextlib.contextmanager
def opened(say: Say) -> Iterator[Storage]:
    """The storage, for this process alone; waits until another one is done."""
    cache = os.environ.get("PENSTOCK_CACHE") or (os.environ.get("XDG_CACHE_HOME") or "~/.cache") + "/penstock"
    folder = Path(cache).expanduser() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of images")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield Storage(folder)


def require(programs: Sequence[str], say: Say) -> None:
    """See that the programs are here: on Debian and Ubuntu, install them.

    Raises:
        CannotBuild: one is missing, or this is not root.
    """
    if os.geteuid() != 0:
        raise CannotBuild(
            "images are built as root here; as another user run `docker build` or `podman build` with a file of "
            "images/, which needs nothing else"
        )
    absent = [name for name in programs if shutil.which(name) is None]
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise CannotBuild(f"needs {' and '.join(absent)}: install them, or build with docker, see images/README.md")
    say(f"installing {' and '.join(absent)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("apt-get", "update", "-qq"), ("apt-get", "install", "-qq", "--no-install-recommends", *absent)):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotBuild(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
