"""What the process itself uses, under the names that Prometheus' own clients give it; read when it is asked for.

Beyond CPU time the numbers come from Linux' /proc. Where there is none (macOS), they are not shown.
"""

from __future__ import annotations

import functools
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

_SELF = Path("/proc/self")


def cpu_s() -> float:
    """CPU time of all threads, user and system."""
    used = os.times()
    return used.user + used.system


def resident_bytes() -> float:
    """Memory that is in RAM."""
    return int((_SELF / "statm").read_bytes().split()[1]) * resource.getpagesize()


def proportional_bytes(pid: int) -> int:
    """Memory of another process in RAM, what it shares with others divided between them (PSS); 0 once it ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def virtual_bytes() -> float:
    """Address space."""
    return int((_SELF / "statm").read_bytes().split()[0]) * resource.getpagesize()


def open_fds() -> float:
    """File descriptors that are open, apart from the one that counts them."""
    return len(os.listdir(_SELF / "fd")) - 1


def max_fds() -> float:
    """File descriptors there may be."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@functools.cache
def started() -> float:
    """When the process began, in seconds since the epoch."""
    ticks = int((_SELF / "stat").read_bytes().rpartition(b")")[2].split()[19])
    running_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - running_s


METRICS: tuple[tuple[str, str, str, Callable[[], float]], ...] = (
    ("process_cpu_seconds_total", "counter", "CPU time of the process", cpu_s),
    *(
        (
            ("process_resident_memory_bytes", "gauge", "Memory that is in RAM", resident_bytes),
            ("process_virtual_memory_bytes", "gauge", "Address space", virtual_bytes),
            ("process_open_fds", "gauge", "Open file descriptors", open_fds),
            ("process_max_fds", "gauge", "File descriptors there may be", max_fds),
            ("process_start_time_seconds", "gauge", "When the process began, since the epoch", started),
        )
        if _SELF.is_dir()
        else ()
    ),
)
