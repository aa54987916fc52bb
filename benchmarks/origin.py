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
    commit = _git("describe", "--always")
    # Earlier questions of the same run have written their answers.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "commit": f"{commit}-dirty" if changed else commit or "not in git",
        "command": shlex.join(("python", "-m", "benchmarks", *sys.argv[1:])),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(("git", *arguments), capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        if cpuinfo.exists()
        else []
    )
    return f"{platform.machine()} {names[0]}" if names else platform.machine()
