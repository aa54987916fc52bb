"""How many CPUs this process may use, by its cgroup's quota and its affinity; and what they can do."""

from __future__ import annotations

import itertools
import math
import os
import re
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
SYSTEM = Path("/sys/devices/system")
INFO = Path("/proc/cpuinfo")
BF16 = ("avx512_bf16", "amx_bf16")
"""Features of which a processor that computes bfloat16 has one."""


def limit(cgroup: Path = CGROUP) -> int:
    """The number of CPUs, at least 1; a quota of 1.5 CPUs counts as 2."""
    affinity = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def features(told: Path = INFO) -> frozenset[str]:
    """Extensions of the instruction set, as Linux names them (``avx2``, ``asimddp``); empty if unknown."""
    try:
        flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", told.read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(flags[1].split()) if flags else frozenset()


def split(count: int, system: Path = SYSTEM) -> list[frozenset[int]]:
    """CPUs of this process for each of ``count`` processes: neighbours by node, package and core stay together.

    Where there are more processes than CPUs, several have the same one.
    """
    cpus = sorted(os.sched_getaffinity(0), key=lambda cpu: (*_place(cpu, system), cpu))
    ends = [round(len(cpus) * position / count) for position in range(count + 1)]
    return [
        frozenset(cpus[begin:end] or [cpus[position % len(cpus)]])
        for position, (begin, end) in enumerate(itertools.pairwise(ends))
    ]


def computes_bf16(told: Path = INFO) -> bool:
    """Whether it gains by bfloat16."""
    return not features(told).isdisjoint(BF16)


def _place(cpu: int, system: Path) -> tuple[int, int, int]:
    folder = system / "cpu" / f"cpu{cpu}"
    nodes = [int(node.name.removeprefix("node")) for node in folder.glob("node[0-9]*")]
    topology = folder / "topology"
    return min(nodes, default=0), _number(topology / "physical_package_id"), _number(topology / "core_id")


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0  # nothing is known of it: the order of numbers will do


def _quota(cgroup: Path) -> float | None:
    try:
        if (cgroup / "cpu.max").exists():  # cgroup v2: "200000 100000" or "max 100000"
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
