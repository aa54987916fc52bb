"""The wheels of every lock that an image installs, downloaded on the machine that builds, with its pip's settings.

So a build needs no network and no settings of its own: a proxy or an index of one's own is configured once, for the
user. pip checks each file against the lock's hashes here, and uv does again inside the build.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging import markers, requirements, utils

PYTHON = "3.11"
GLIBC = (2, 36)
"""What every base has to bring at least: Debian 12's."""


def target(machine: str) -> Mapping[str, str]:
    """The environment that the images' Python is, in the terms of a lock's markers."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }


def wanted(lock: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The lines of a lock that hold in an environment, each with its hashes and without its marker."""
    for block in lock.replace("\\\n", " ").splitlines():
        if not block.strip() or block.lstrip().startswith("#"):
            continue
        pin, *hashes = block.split(" --hash=")
        requirement = requirements.Requirement(pin.strip())
        if requirement.marker is None or _holds(requirement.marker, environment):
            pinned = f"{requirement.name}{requirement.specifier}"
            yield " ".join([pinned, *(f"--hash={value.strip()}" for value in hashes)])


def _holds(marker: markers.Marker, environment: Mapping[str, str]) -> bool:
    return marker.evaluate(dict(environment))


def platforms(machine: str) -> list[str]:
    """The platform tags of wheels that run on every base, the best first."""
    numbered = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC[1], 4, -1)]
    return [*numbered, *(f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")), f"linux_{machine}"]


def download(locks: Sequence[Path], folder: Path) -> bool:
    """Bring the folder to hold the wheels of the locks and no others; False where it did already.

    Raises:
        subprocess.CalledProcessError: pip could not; its output is in ``stderr``.
    """
    machine = platform.machine()
    lines = sorted({line for lock in locks for line in wanted(lock.read_text(), target(machine))})
    text = "\n".join(lines) + "\n"
    stamp = folder / f".{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if stamp.exists():
        return False
    listed = folder / ".requirements.txt"
    listed.write_text(text)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--require-hashes", f"--requirement={listed}", f"--dest={folder}",
            f"--python-version={PYTHON}", "--implementation=cp",
            *(f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")),
            *(f"--platform={tag}" for tag in (*platforms(machine), "any")),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    keep = {utils.canonicalize_name(line.split("==")[0]) + "-" + line.split("==")[1].split()[0] for line in lines}
    for path in folder.glob("*.whl"):
        name, version, *_ = utils.parse_wheel_filename(path.name)
        if f"{name}-{version}" not in keep:
            path.unlink()
    for old in folder.glob(".[0-9a-f]*[0-9a-f]"):
        if old.name not in (".gitignore",):
            old.unlink()
    stamp.touch()
    return True
