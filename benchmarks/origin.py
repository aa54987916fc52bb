"""Machine, commit and command: what a reader needs to repeat a figure."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path


def described() -> dict[str, str]:
    """Of this process and this machine."""
    commit = subprocess.run(("git", "describe", "--always", "--dirty"), capture_output=True, text=True, check=False)
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "commit": commit.stdout.strip() or "not in git",
        "command": shlex.join(("python", "-m", "benchmarks", *sys.argv[1:])),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
